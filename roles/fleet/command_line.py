"""Checks of the command line of a pyinfra run, made before anything is done. Pure."""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from roles.checks import printable
from roles.declaration import SSH, Declaration, name_problem, value_problems

# The names of `--data NAME=true` or `=false` that deploys know.
SWITCHES = (
    *("accept_hardware", "accept_plan", "explain", "identifiers", "interrupt"),
    *("measure_interconnect", "upgrade_driver", "validate", "verbose"),
)
# Those of them that mean something to some deploys alone.
_SWITCHES_OF: Mapping[str, tuple[str, ...]] = {
    "identifiers": ("discover.py",),
    "interrupt": ("drain.py",),
    "measure_interconnect": ("llm.py",),
    "upgrade_driver": ("llm.py", "drivers.py"),
    "validate": ("llm.py",),
}
# `--data lift=HOST/REPLICA` for a quarantine.
LIFT, QUARANTINE = "lift", "quarantine.py"
# `--data host=HOST`, `replica=HOST/NAME` or `gpu=HOST/INDEX`, with `reason=WHY`, for drains.
TARGETS: Mapping[str, tuple[str, str]] = {
    "host": (r"[\w.@-]+", "gpu-1"),
    "replica": (r"[\w.@-]+/[\w.-]+", "gpu-1/qwen-0"),
    "gpu": (r"[\w.@-]+/[0-9]{1,3}", "gpu-1/0"),
}
REASON = "reason"
DRAIN, UNDRAIN = "drain.py", "undrain.py"
_REASON_LENGTH = 200
DEPLOYS = Path(__file__).resolve().parents[2] / "deploys"
DISCOVER = "discover.py"


@dataclass(frozen=True)
class Command:
    """A pyinfra command: its inventory, its operations, and the options that are checked here.

    `ssh` are the values of options such as --ssh-user, by the name that data have.
    """

    inventory: str
    operations: Sequence[str] = ()
    data: Sequence[str] = ()
    limit: Sequence[str] = ()
    exclude: Sequence[str] = ()
    group_data: Sequence[str] = ()
    ssh: Mapping[str, Any] = field(default_factory=dict)

    @property
    def deploys(self) -> tuple[str, ...]:
        """The file names of this project's deploys among the operations."""
        files = (Path(one) for one in self.operations if one.endswith(".py"))
        return tuple(file.name for file in files if file.resolve().parent == DEPLOYS)

    @property
    def needs_hardware(self) -> bool:
        """Whether the GPUs of every host must be known before the run: all deploys but discovery
        need them."""
        return bool(self.deploys) and DISCOVER not in self.deploys


def data_problems(command: Command, parsed: Callable[[str], Any]) -> Iterator[str]:
    """The problems of `--data` options; `parsed` reads a value as pyinfra does."""
    for word in command.data:
        name, equals, value = word.partition("=")
        shown = f"--data {name}=…" if "password" in name else f"--data {printable(word)}"
        if not equals or not name:
            yield f"{shown}: has no value; write --data NAME=true or NAME=false"
        elif name in SWITCHES:
            if command.deploys and not isinstance(parsed(value), bool):
                yield f"{shown}: say true or false, as in --data {name}=true"
            elif command.deploys:
                yield from (f"{shown}: {one}" for one in _switch_problems(command, name))
        elif name == LIFT and (not command.deploys or QUARANTINE in command.deploys):
            if command.deploys and not re.fullmatch(r"[\w.@-]+/[\w.-]+", str(parsed(value))):
                yield f"{shown}: name a replica of a host, as in --data lift=gpu-1/qwen-0"
        elif name in (*TARGETS, REASON) and {DRAIN, UNDRAIN}.intersection(command.deploys):
            yield from (f"{shown}: {one}" for one in _drain_problems(name, str(parsed(value))))
        elif command.deploys and name not in SSH and not name.startswith("_"):
            close = difflib.get_close_matches(name.lower().replace("-", "_"), SWITCHES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known names: {', '.join(SWITCHES)}"
            yield f"{shown}: unknown name {name!r}; {hint}"
        elif command.deploys and (problem := name_problem(name)):
            yield f"{shown}: {problem}"
        elif command.deploys:
            yield from (f"{shown}{problem}" for problem in value_problems(name, parsed(value)))
    yield from _repeated(command)
    yield from _missing_of_drains(command)
    for name, value in command.ssh.items() if command.deploys else ():
        option = f"--{name.replace('_', '-')}"
        yield from (f"{option}{problem}" for problem in value_problems(name, value))


def _switch_problems(command: Command, name: str) -> Iterator[str]:
    deploys = _SWITCHES_OF.get(name, command.deploys)
    if not set(deploys).intersection(command.deploys):
        yield f"says nothing to {', '.join(command.deploys)}, but to {' and '.join(deploys)}"


def _repeated(command: Command) -> Iterator[str]:
    """Names that are given twice; pyinfra would take the last. Targets have their own problem."""
    names = [word.partition("=")[0] for word in command.data]
    for name in dict.fromkeys(names) if command.deploys else ():
        if name and name not in TARGETS and names.count(name) > 1:
            yield f"--data {name}=…: is given {names.count(name)} times; give it once"


def _drain_problems(name: str, value: str) -> Iterator[str]:
    if name == REASON:
        if not value.strip() or len(value) > _REASON_LENGTH or value != printable(value):
            yield f"say why in one line of at most {_REASON_LENGTH} characters"
        return
    pattern, example = TARGETS[name]
    if not re.fullmatch(pattern, value):
        yield f"is no {name}; write it as in --data {name}={example}"


def _missing_of_drains(command: Command) -> Iterator[str]:
    """What a drain or its end does not say."""
    names = [word.partition("=")[0] for word in command.data]
    for deploy in {DRAIN, UNDRAIN}.intersection(command.deploys):
        if len([name for name in names if name in TARGETS]) != 1:
            yield (
                f"{deploy}: say what, one thing at a time: --data host=HOST, replica=HOST/NAME or "
                "gpu=HOST/INDEX"
            )
        if deploy == UNDRAIN and DRAIN not in command.deploys and REASON in names:
            yield f"--data {REASON}=…: says nothing to {UNDRAIN}; leave it out"
        if deploy == DRAIN and REASON not in names:
            yield f"{deploy}: say why: --data reason='a fan is loud'"


def overrides(command: Command, parsed: Callable[[str], Any]) -> dict[str, Any]:
    """The ssh data that a command has for all hosts, instead of the inventory's."""
    words = (word.partition("=") for word in command.data)
    given = {name: parsed(value) for name, _, value in words if name in SSH}
    return given | dict(command.ssh)


def folder_problems(command: Command) -> Iterator[str]:
    """Folders of group data that are none, or hold what pyinfra would ignore."""
    inventory = Path(os.path.realpath(command.inventory)).parent
    usual = [Path("group_data"), inventory / "group_data"]
    for folder in map(Path, command.group_data):
        if not folder.exists() or folder == Path():
            yield f"--group-data {folder}: is not there; correct the path"
    for folder in (*usual, *map(Path, command.group_data)):
        if folder.is_file() and folder.suffix != ".py":
            yield f"{folder}: is a file; make it a folder, with a file GROUP.py for each group"
        for file in sorted(folder.iterdir()) if folder.is_dir() and folder != Path() else ():
            if file.suffix in (".yaml", ".yml", ".json"):
                yield f"{file}: pyinfra reads files of Python alone; write it as {file.stem}.py"


def option_problems(options: Mapping[str, Any]) -> Iterator[str]:
    """Options of pyinfra, by name, with values that it would not survive."""
    for name in ("parallel", "fail_percent", "retry", "retry_delay"):
        value = options.get(name)
        if value is not None and value < 0:
            yield f"--{name.replace('_', '-')} {value}: is below 0; write a number from 0 on"


def host_problems(command: Command, declaration: Declaration) -> Iterator[str]:
    """Patterns of `--limit` and `--exclude` that match no host or group, or that leave no host."""
    groups = _groups(declaration)
    matches = {
        option: [_matching(pattern, groups) for pattern in patterns]
        for option, patterns in (("--limit", command.limit), ("--exclude", command.exclude))
    }
    patterns = {"--limit": command.limit, "--exclude": command.exclude}
    lost = False
    for option, found in matches.items():
        for pattern, hosts in zip(patterns[option], found, strict=True):
            if not hosts:
                lost = True
                near = _suggestion(pattern, groups)
                yield f"{option} {pattern}: no host or group has this name; {near}"
    limited = set().union(*matches["--limit"]) if command.limit else groups["all"]
    if not lost and not limited - set().union(*matches["--exclude"]):
        given = [f"--exclude {one}" for one in command.exclude]
        yield (
            f"{' '.join(given)}: leaves no host; exclude fewer"
            if given
            else f"--limit {' '.join(command.limit)}: leaves no host; name some"
            if command.limit
            else f"{declaration.name}: no host is in it; list some, and name the file otherwise "
            "than a group"
        )


def hosts_of(command: Command, declaration: Declaration) -> set[str]:
    """The names of the hosts that a command reaches, by `--limit` and `--exclude`."""
    groups = _groups(declaration)
    limits = [_matching(pattern, groups) for pattern in command.limit]
    excluded = set().union(*(_matching(pattern, groups) for pattern in command.exclude))
    return (set().union(*limits) if limits else groups["all"]) - excluded


def _groups(declaration: Declaration) -> dict[str, set[str]]:
    """The names of hosts by group."""
    groups: dict[str, set[str]] = {"all": set(declaration.hosts), declaration.name: set()}
    for name, host in declaration.hosts.items():
        for group in host.groups:
            groups.setdefault(group, set()).add(name)
    return groups


def _matching(pattern: str, groups: Mapping[str, set[str]]) -> set[str]:
    if pattern in groups:
        return groups[pattern] or groups["all"]
    return {name for name in groups["all"] if fnmatch(name, pattern)}


def _suggestion(pattern: str, groups: Mapping[str, set[str]]) -> str:
    known = [*groups["all"], *groups]
    close = difflib.get_close_matches(pattern, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known)[:20])}"
