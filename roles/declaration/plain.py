"""Reads inventory files without pyinfra, if they are plain lists of hosts.

Importing pyinfra takes most of a second, and a plan that is only shown does not need it. Files that
this module cannot read like pyinfra are left to `roles.declaration.inventory`.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from roles.declaration import time_limit
from roles.declaration.declaration import Declaration, DeclaredHost
from roles.declaration.files import InventoryFileError, file_error
from roles.declaration.problems import DeclarationError, merged
from roles.declaration.recordings import recorded
from roles.declaration.shape import KEY, shape_problems
from roles.declaration.ssh import SSH

# The `__name__` of a file that is read here.
_NAME = "pyinfra_llm_inventory"
# The global name that is set once the file has called `check`.
_CALLED = "__pyinfra_llm_called__"

Group = tuple[Sequence[Any], Mapping[str, Any]]


def read_plain(path: Path) -> Declaration | None:
    """What an inventory file declares; None where only pyinfra can read it.

    pyinfra is needed for files of group data, for hosts of a connector (`@…`), and to report errors
    in the file. Raises DeclarationError where the file's shape is wrong.
    """
    if any((folder / "group_data").exists() for folder in (Path.cwd(), path.parent)):
        return None
    attributes = _executed(path)
    if attributes is None:
        return None
    return declaration_of(path, attributes, called=attributes.pop(_CALLED, False))


def declaration_of(
    path: Path, attributes: Mapping[str, Any], called: bool = True
) -> Declaration | None:
    """What the global names of an inventory file declare; see `read_plain`.

    `called` says whether the file calls `check`.
    """
    if problems := [*shape_problems(attributes), *missing_check(called)]:
        raise DeclarationError(path.stem, problems)
    groups = _groups(attributes, path.stem)
    return None if groups is None else _declaration(path, groups)


def missing_check(called: bool) -> list[str]:
    """The problem of a file that does not call `check`: pyinfra would run it unchecked."""
    if called:
        return []
    return [
        "check(__file__): is not called; let it be the file's last line, after "
        "from roles.fleet.inventory import check"
    ]


def is_read_plainly() -> bool:
    """Whether `read_plain` runs the file that called our caller; records that it called `check`."""
    names = sys._getframe(2).f_globals
    if names.get("__name__") != _NAME:
        return False
    names[_CALLED] = True
    return True


def own_data(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data of a level under our key."""
    return data.get(KEY, {})


def ssh_data(*levels: Mapping[str, Any]) -> Mapping[str, Any]:
    """pyinfra's data of ssh from levels, the last of which wins."""
    return {key: level[key] for level in levels for key in SSH if key in level}


def _executed(path: Path) -> dict[str, Any] | None:
    attributes: dict[str, Any] = {"__file__": str(path), "__name__": _NAME}
    try:
        with time_limit.load_limit(time_limit.LOAD_S):
            exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), attributes)
    except KeyboardInterrupt:
        raise
    except time_limit.LoadTimeoutError as error:
        raise InventoryFileError(file_error(str(path), error)) from None
    except BaseException:
        # pyinfra runs the file again and reports the error.
        return None
    return attributes


def _groups(attributes: Mapping[str, Any], stem: str) -> dict[str, Group] | None:
    """The groups of a file as pyinfra sees them; the last are the file's own name and `all`.

    None where a host belongs to a connector.
    """
    groups: dict[str, Group] = {
        name: (value[0], value[1]) if isinstance(value, tuple) else (value, {})
        for name, value in attributes.items()
        if not name.startswith("_") and _is_group(value)
    }
    named = [name for hosts, _ in groups.values() for name in map(_name, hosts)]
    if not all(isinstance(name, str) and not name.startswith("@") for name in named):
        return None
    everybody = groups.pop("all", (list(dict.fromkeys(named)), {}))
    groups.setdefault(stem, (everybody[0], {}))
    return groups | {"all": everybody}


def _is_group(value: Any) -> bool:
    hosts = value[0] if isinstance(value, tuple) and len(value) == 2 else value
    return isinstance(hosts, list) and all(isinstance(host, str | tuple) for host in hosts)


def _name(host: Any) -> Any:
    return host[0] if isinstance(host, tuple) and host else host


def _declaration(path: Path, groups: Mapping[str, Group]) -> Declaration:
    everybody, data = groups["all"]
    own = {name: value for name, value in groups.items() if name != "all"}
    levels = {name: own_data(value[1]) for name, value in own.items()}
    member: dict[str, list[str]] = {_name(host): [] for host in everybody}
    host_data: dict[str, dict[str, Any]] = {name: {} for name in member}
    for group, name, values in _host_entries(own):
        if name in member:
            member[name].append(group)
            host_data[name].update(values)
    for _, name, values in _host_entries({"all": groups["all"]}):
        host_data[name].update(values)
    hosts = {}
    for name, found in member.items():
        merged_data: dict[str, Any] = {}
        for group in found:
            merged_data = merged(merged_data, levels[group])
        merged_data = merged(merged_data, own_data(host_data[name]))
        reached_by = str(host_data[name].get("ssh_hostname") or name)
        ssh = ssh_data(data, *(own[group][1] for group in found), host_data[name])
        hosts[name] = DeclaredHost(frozenset(found), merged_data, reached_by, ssh)
    return Declaration(path.stem, own_data(data), hosts, recorded(path))


def _host_entries(groups: Mapping[str, Group]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Each host in each group, with the data that the group has beside its name."""
    for group, (hosts, _) in groups.items():
        for host in hosts:
            yield group, _name(host), host[1] if isinstance(host, tuple) else {}
