"""What a host said to the questions, read into typed objects. Pure.

What a host cannot tell is None or empty: a missing program is an answer too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

_MARK = "@@ "
_NEEDED = ("clock", "machine", "disks", "clock-end", "end")

Version = tuple[int, ...]


@dataclass(frozen=True)
class Folder:
    """Where a folder is, or would come to be: the nearest that exists, and its file system.

    `free_inodes` is None where the file system makes them as needed.
    """

    at: str
    free_bytes: int | None
    free_inodes: int | None
    mount: str | None
    options: tuple[str, ...]


@dataclass(frozen=True)
class Listener:
    """A TCP port in use, by whom as far as root could tell; `cgroup` is the process's."""

    port: int
    program: str | None = None
    pid: int | None = None
    cgroup: str = ""


@dataclass(frozen=True)
class Reach:
    """How a request went: curl's exit status, the last HTTP status (0: none), what was said."""

    tool: str
    exit_status: int
    http_status: int
    said: str = ""


@dataclass(frozen=True)
class Files:
    """The files of a folder by name; those of a hub's cache have no names, so many of them.

    `real` is the folder behind links; None where there is no such folder.
    """

    real: str | None
    readable: bool
    sizes: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Answers:
    """One host's answers. Those of root are empty where `root` is false; `root_said` says why.

    `clock` and `clock_end` are the host's seconds since 1970 when it began and ended to answer.
    """

    clock: int
    clock_end: int
    machine: str
    glibc: Version | None
    init: str
    systemd: int | None
    python_there: bool
    python: Version | None
    python_venv: bool
    missing_packages: tuple[str, ...] | None
    dpkg_audit: str
    engine_installed: bool
    pip_index: str
    wheels: int | None
    folders: Mapping[str, Folder]
    memory_mib: int | None
    synchronised: bool | None
    selinux_enforcing: bool
    firewalls: tuple[str, ...]
    reboot_required: bool
    reboot_for: str
    proxies: tuple[str, ...]
    distribution: tuple[str, ...]
    reach: Mapping[str, Reach]
    hung: frozenset[str]
    no_room: bool
    root: bool = False
    root_said: str = ""
    listeners: tuple[Listener, ...] | None = None
    umask: int | None = None
    own_key_enrolled: bool = False
    root_proxies: tuple[str, ...] = ()
    our_site: bool = False
    hub: Mapping[str, Files] = field(default_factory=dict)
    weights: Mapping[str, Files] = field(default_factory=dict)
    packaging_busy: bool = False
    firewall_rules: tuple[str, ...] = ()
    denials: tuple[str, ...] = ()


def parse_answers(lines: Sequence[str]) -> Answers:
    """Read the output of the questions; ValueError where it is cut short."""
    parts = _parts(lines)
    missing = [name for name in _NEEDED if name not in parts]
    if missing:
        raise ValueError(f"the host's answers are cut short: {', '.join(missing)} missing")
    one = {name: " ".join(text) for name, text in parts.items()}
    return _with_root(_of_user(parts, one), parts, one)


def _of_user(parts: Mapping[str, list[str]], one: Mapping[str, str]) -> Answers:
    """What an ordinary user is told. `one` has each part as one line."""
    python = _pairs(parts.get("python", ()))
    return Answers(
        clock=_seconds(one["clock"]),
        clock_end=_seconds(one["clock-end"]),
        machine=one["machine"],
        glibc=_version(one.get("glibc", "")),
        init=one.get("init", ""),
        systemd=(_version(one.get("systemd", "")) or (None,))[0],
        python_there=python.get("there") == "yes",
        python=_version(python.get("version", "")),
        python_venv=python.get("venv") == "yes",
        missing_packages=_packages(parts.get("missing-packages", ())),
        dpkg_audit=one.get("dpkg-audit", ""),
        engine_installed=one.get("engine") == "installed",
        pip_index=one.get("pip-index", ""),
        wheels=_number(_pairs(parts.get("wheelhouse", ())).get("wheels", "")),
        folders=dict(_folders(parts["disks"])),
        memory_mib=_memory_mib(one.get("memory", "")),
        synchronised=_synchronised(_settings(parts, "synchronised")),
        selinux_enforcing=one.get("selinux") == "1",
        firewalls=_active(parts.get("firewall", ())),
        reboot_required=one.get("reboot-required") == "yes",
        reboot_for=one.get("reboot", ""),
        proxies=tuple(parts.get("proxies", ())),
        distribution=tuple(parts.get("distribution", ())),
        reach=_reach(parts),
        hung=frozenset(name[len("hung-") :] for name in parts if name.startswith("hung-")),
        no_room="no-room" in parts,
    )


def _with_root(answers: Answers, parts: Mapping[str, list[str]], one: Mapping[str, str]) -> Answers:
    """The same with what root alone is told, as far as it was asked."""
    by_root = parts.get("listeners") if "root" in parts else None
    return replace(
        answers,
        root="root-end" in parts,
        root_said=one.get("root-errors", ""),
        listeners=_listeners(by_root, parts),
        umask=_octal(one.get("umask", "")),
        own_key_enrolled="already enrolled" in one.get("own-key", ""),
        root_proxies=tuple(parts.get("root-proxies", ())),
        our_site=one.get("site") == "ours",
        hub=dict(_files(parts.get("hub", ()))),
        weights=dict(_files(parts.get("weights", ()))),
        packaging_busy=one.get("packaging") == "busy",
        firewall_rules=tuple(parts.get("firewall-rules", ())),
        denials=tuple(parts.get("denials", ())),
    )


def _parts(lines: Sequence[str]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    label = None
    for line in lines:
        if line.startswith(_MARK):
            label = line[len(_MARK) :].strip()
            parts[label] = []
        elif label is not None and line.strip():
            # What stands above the first label is a login's banner.
            parts[label].append(line.strip())
    return parts


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


def _memory_mib(text: str) -> int | None:
    match = re.search(r"MemTotal:\s+([0-9]{1,18}) kB", text)
    return int(match[1]) // 1024 if match else None


def _synchronised(settings: Mapping[str, str]) -> bool | None:
    said = settings.get("NTPSynchronized")
    return {"yes": True, "no": False}.get(said or "")


def _active(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name, state in _pairs(lines).items() if state == "active")


def _groups(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """The lines below each line that says `folder NAME`."""
    name, own = None, []
    for line in lines:
        if line.startswith("folder "):
            if name is not None:
                yield name, own
            name, own = line.removeprefix("folder "), []
        else:
            own.append(line)
    if name is not None:
        yield name, own


def _folders(lines: Iterable[str]) -> Iterator[tuple[str, Folder]]:
    for name, own in _groups(lines):
        said = _pairs(own)
        space, inodes = said.get("space", "").split(), said.get("inodes", "").split()
        free_kib = _number(space[3]) if len(space) > 5 else None
        has_inodes = len(inodes) > 5 and _number(inodes[1])
        yield (
            name,
            Folder(
                at=said.get("at", ""),
                free_bytes=None if free_kib is None else free_kib * 1024,
                free_inodes=_number(inodes[3]) if has_inodes else None,
                mount=" ".join(space[5:]) or None,
                options=tuple(filter(None, said.get("options", "").split(","))),
            ),
        )


def _files(lines: Iterable[str]) -> Iterator[tuple[str, Files]]:
    for name, own in _groups(lines):
        sizes = [
            (match[2], int(match[1]))
            for match in (re.fullmatch(r"file ([0-9]{1,18}) (.*)", line) for line in own)
            if match
        ]
        said = _pairs(line for line in own if not line.startswith("file "))
        yield name, Files(said.get("real"), said.get("readable") == "yes", tuple(sizes))


def _listeners(
    by_root: Sequence[str] | None, parts: Mapping[str, list[str]]
) -> tuple[Listener, ...] | None:
    by_user = parts.get("listening", [])
    if "asked" not in by_user:
        return None
    groups = _pairs(parts.get("owners", ()))
    found = (_listener(line, groups) for line in by_root or by_user)
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


def _reach(parts: Mapping[str, list[str]]) -> dict[str, Reach]:
    found = {}
    for name, lines in parts.items():
        match = re.fullmatch(
            r"(curl|python|none) ([0-9]{1,3}) ([0-9]{1,3})", lines[0] if lines else ""
        )
        if name.startswith("reach-") and match:
            said = " ".join(lines[1:])
            found[name.removeprefix("reach-")] = Reach(match[1], int(match[2]), int(match[3]), said)
    return found
