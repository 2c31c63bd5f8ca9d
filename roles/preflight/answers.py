"""A host's answers to preflight's questions, read into typed objects. Pure.

A field is None or empty where the host could not answer, for instance for want of a program.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from roles.driver import PART as DRIVER
from roles.driver import has_own_key
from roles.host import END, SUDO, Sections, require
from roles.preflight.questions import FOLLOW_UP, ROOT, USER

Version = tuple[int, ...]


@dataclass(frozen=True)
class Folder:
    """The file system that holds a folder, or that will hold it once it is made.

    `free_inodes` is None where the file system creates inodes as needed.
    """

    free_bytes: int | None
    free_inodes: int | None
    mount: str | None
    options: tuple[str, ...]


@dataclass(frozen=True)
class Listener:
    """A TCP port that is in use, and the process that listens there, which only root can see."""

    port: int
    program: str | None = None
    pid: int | None = None
    cgroup: str = ""


@dataclass(frozen=True)
class UrlResult:
    """The result of a request: curl's exit status, the last HTTP status (0: none), the error."""

    tool: str
    exit_status: int
    http_status: int
    message: str = ""


@dataclass(frozen=True)
class Files:
    """The files of a folder, as pairs of name and bytes; files of a hub's cache are named "-".

    `real` is the folder's path without links, None where the folder does not exist. `readable` says
    whether other users than root can read it.
    """

    real: str | None
    readable: bool
    sizes: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Python:
    """A Python on the host; `version` is None where it does not run."""

    version: Version | None
    venv: bool


@dataclass(frozen=True)
class OtherDeploy:
    """A process of another deploy that is at work on the host: since how many seconds, and for
    which run; None and "" where that is not known."""

    pid: int
    seconds: int | None = None
    run: str = ""


@dataclass(frozen=True)
class PreflightAnswers:
    """What one host answered to preflight's questions.

    `root` says whether root's part was answered; where it is false its fields are empty,
    `sudo_message` is what sudo printed, and `sudo_hung` says that it gave no answer in time.

    `pythons` has those that are on the host, `wheels` the number of wheels in each folder there.
    `given_ports` are the first and the last port that the kernel gives to who names none.
    `clock` and `clock_end` are the host's time when its answer began and ended, in seconds since
    1970.
    """

    clock: int
    clock_end: int
    glibc: Version | None
    init: str
    systemd: int | None
    pythons: Mapping[str, Python]
    missing_packages: tuple[str, ...] | None
    engine_installed: bool
    pip_index: str
    wheels: Mapping[str, int]
    folders: Mapping[str, Folder]
    synchronised: bool | None
    given_ports: tuple[int, int] | None
    selinux_enforcing: bool
    firewalls: tuple[str, ...]
    proxies: tuple[str, ...]
    distribution: tuple[str, ...]
    urls: Mapping[str, UrlResult]
    hung: frozenset[str]
    temporary_full: bool
    root: bool = False
    sudo_message: str = ""
    sudo_hung: bool = False
    listeners: tuple[Listener, ...] | None = None
    umask: int | None = None
    own_key_enrolled: bool = False
    root_proxies: tuple[str, ...] = ()
    our_balancers: tuple[str, ...] = ()
    hub: Mapping[str, Files] = field(default_factory=dict)
    weights: Mapping[str, Files] = field(default_factory=dict)
    packaging_busy: bool = False
    other_deploy: OtherDeploy | None = None
    firewall_rules: tuple[str, ...] = ()
    denials: tuple[str, ...] = ()


def parse_preflight(answers: Mapping[str, Sections]) -> PreflightAnswers:
    """Read preflight's parts of an answer; ValueError where the user's part is cut short."""
    require(answers.get(USER, {}), ("clock", "disks", "clock-end"), "what a deploy needs of it")
    parts = {name: _lines(text) for name, text in answers[USER].items()}
    later = {name: _lines(text) for name, text in answers.get(FOLLOW_UP, {}).items()}
    by_root = {name: _lines(text) for name, text in answers.get(ROOT, {}).items()}
    sudo = answers.get(SUDO, {})
    return PreflightAnswers(
        **_of_user(parts),
        **_of_root(by_root),
        urls=_reach(parts | later),
        hung=frozenset(
            name.removeprefix("hung-") for name in (*parts, *later) if name.startswith("hung-")
        ),
        listeners=_listeners(parts, by_root),
        sudo_message=_one_line(_lines(sudo.get("errors", ""))),
        sudo_hung="hung" in sudo,
        own_key_enrolled=has_own_key(answers.get(DRIVER.name, {})),
    )


def _of_user(parts: Mapping[str, list[str]]) -> dict[str, Any]:
    """The fields that the ordinary user's part answers."""
    one = {name: _one_line(lines) for name, lines in parts.items()}
    return {
        "clock": _seconds(one["clock"]),
        "clock_end": _seconds(one["clock-end"]),
        "glibc": _version(one.get("glibc", "")),
        "init": one.get("init", ""),
        "systemd": (_version(one.get("systemd", "")) or (None,))[0],
        "pythons": dict(_pythons(parts.get("python", ()))),
        "missing_packages": _packages(parts.get("missing-packages", ())),
        "engine_installed": one.get("engine") == "installed",
        "pip_index": one.get("pip-index", ""),
        "wheels": dict(_wheels(parts.get("wheelhouse", ()))),
        "folders": dict(_folders(parts["disks"])),
        "synchronised": _synchronised(_settings(parts, "synchronised")),
        "given_ports": _range(one.get("given-ports", "")),
        "selinux_enforcing": one.get("selinux") == "1",
        "firewalls": _active(parts.get("firewall", ())),
        "proxies": tuple(parts.get("proxies", ())),
        "distribution": tuple(parts.get("distribution", ())),
        "temporary_full": "no-room" in parts,
    }


def _of_root(parts: Mapping[str, list[str]]) -> dict[str, Any]:
    """The fields that root's part answers; empty ones where root was not asked."""
    one = {name: _one_line(lines) for name, lines in parts.items()}
    return {
        "root": END in parts,
        "umask": _octal(one.get("umask", "")),
        "root_proxies": tuple(parts.get("root-proxies", ())),
        "our_balancers": tuple(parts.get("sites", ())),
        "hub": dict(_files(parts.get("hub", ()))),
        "weights": dict(_files(parts.get("weights", ()))),
        "other_deploy": _other_deploy(parts.get("deploys", ())),
        "packaging_busy": one.get("packaging") == "busy",
        "firewall_rules": tuple(parts.get("firewall-rules", ())),
        "denials": tuple(parts.get("denials", ())),
    }


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _one_line(lines: Sequence[str]) -> str:
    return " ".join(lines)


def _seconds(text: str) -> int:
    number = _number(text)
    if number is None:
        raise ValueError(f"the host's clock says {text[:40]!r}, which are no seconds since 1970")
    return number


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _octal(text: str) -> int | None:
    return int(text, 8) if re.fullmatch(r"[0-7]{1,4}", text) else None


def _version(text: str) -> Version | None:
    match = re.search(r"\b([0-9]{1,6}(?:\.[0-9]{1,6})*)", text)
    return tuple(map(int, match[1].split("."))) if match else None


def _pairs(lines: Iterable[str]) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(" ") for line in lines)}


def _settings(parts: Mapping[str, list[str]], name: str) -> dict[str, str]:
    lines = (line.partition("=") for line in parts.get(name, ()))
    return {key: value for key, _, value in lines}


def _packages(lines: Sequence[str]) -> tuple[str, ...] | None:
    return None if "@no-dpkg" in lines else tuple(lines)


def _synchronised(settings: Mapping[str, str]) -> bool | None:
    value = settings.get("NTPSynchronized")
    return {"yes": True, "no": False}.get(value or "")


def _range(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"([0-9]{1,5})\s+([0-9]{1,5})", text)
    return (int(match[1]), int(match[2])) if match else None


def _active(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name, state in _pairs(lines).items() if state == "active")


def _groups(lines: Iterable[str], word: str = "folder") -> Iterator[tuple[str, list[str]]]:
    """Each name with the lines that follow its line `folder NAME` (or another word)."""
    name, own = None, []
    for line in lines:
        if line.startswith(f"{word} "):
            if name is not None:
                yield name, own
            name, own = line.removeprefix(f"{word} "), []
        else:
            own.append(line)
    if name is not None:
        yield name, own


def _pythons(lines: Iterable[str]) -> Iterator[tuple[str, Python]]:
    for name, own in _groups(lines, "python"):
        fields = _pairs(own)
        yield name, Python(_version(fields.get("version", "")), fields.get("venv") == "yes")


def _wheels(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    for name, own in _groups(lines):
        yield name, _number(_pairs(own).get("wheels", "")) or 0


def _folders(lines: Iterable[str]) -> Iterator[tuple[str, Folder]]:
    for name, own in _groups(lines):
        fields = _pairs(own)
        space, inodes = fields.get("space", "").split(), fields.get("inodes", "").split()
        free_kib = _number(space[3]) if len(space) > 5 else None
        has_inodes = len(inodes) > 5 and _number(inodes[1])
        yield (
            name,
            Folder(
                free_bytes=None if free_kib is None else free_kib * 1024,
                free_inodes=_number(inodes[3]) if has_inodes else None,
                mount=" ".join(space[5:]) or None,
                options=tuple(filter(None, fields.get("options", "").split(","))),
            ),
        )


def _files(lines: Iterable[str]) -> Iterator[tuple[str, Files]]:
    for name, own in _groups(lines):
        sizes = [
            (match[2], int(match[1]))
            for match in (re.fullmatch(r"file ([0-9]{1,18}) (.*)", line) for line in own)
            if match
        ]
        fields = _pairs(line for line in own if not line.startswith("file "))
        yield name, Files(fields.get("real"), fields.get("readable") == "yes", tuple(sizes))


def _other_deploy(lines: Iterable[str]) -> OtherDeploy | None:
    """The oldest process that has a lock open: the others are what it started."""
    line = re.compile(r"([0-9]{1,10})(?: ([0-9]{0,10}))?(?: ([\w.-]{0,80}))?")
    matches = [match for match in map(line.fullmatch, lines) if match]
    found = [OtherDeploy(int(one[1]), _number(one[2] or ""), one[3] or "") for one in matches]
    return max(found, key=lambda one: one.seconds or 0, default=None)


def _listeners(
    parts: Mapping[str, list[str]], by_root: Mapping[str, list[str]]
) -> tuple[Listener, ...] | None:
    by_user = parts.get("listening", [])
    if "asked" not in by_user:
        return None
    groups = _pairs(by_root.get("owners", ()))
    found = (_listener(line, groups) for line in by_root.get("listeners") or by_user)
    return tuple(listener for listener in found if listener)


def _listener(line: str, groups: Mapping[str, str]) -> Listener | None:
    """One line of `ss -H -ltnp`: State Recv-Q Send-Q Local:Port Peer:Port Process."""
    fields = line.split(None, 5)
    port = re.search(r":([0-9]{1,5})$", fields[3]) if len(fields) > 4 else None
    if port is None:
        return None
    user = re.search(r'\(\("([^"]*)",pid=([0-9]{1,10})', line)
    if user is None:
        return Listener(int(port[1]))
    return Listener(int(port[1]), user[1], int(user[2]), groups.get(user[2], ""))


def _reach(parts: Mapping[str, list[str]]) -> dict[str, UrlResult]:
    found = {}
    for name, lines in parts.items():
        match = re.fullmatch(
            r"(curl|python|none) ([0-9]{1,3}) ([0-9]{1,3})", lines[0] if lines else ""
        )
        if name.startswith("reach-") and match:
            message = " ".join(lines[1:])
            found[name.removeprefix("reach-")] = UrlResult(
                match[1], int(match[2]), int(match[3]), message
            )
    return found
