"""Problems of the shape of an inventory file: its groups, its hosts, the keys of their data. Pure.

pyinfra itself ignores what it cannot use as a group or as data.
"""

import difflib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

from roles.declaration.declaration import ROLES
from roles.declaration.settings import FleetSettings, HostSettings
from roles.declaration.ssh import name_problem, ssh_problems
from roles.host import printed

KEY = "llm"
GROUPS = (*ROLES, "all")
_OUR_SETTINGS = frozenset({*FleetSettings.model_fields, *HostSettings.model_fields})
_EXAMPLE = '("gpu-1", {"ssh_hostname": "10.0.0.11"})'


def shape_problems(attributes: Mapping[str, Any]) -> list[str]:
    """The problems of the groups of a file, given its global names, each with a remedy."""
    problems: list[str] = []
    for name, value in attributes.items():
        if name.startswith("_") or isinstance(value, ModuleType) or callable(value):
            continue
        if isinstance(value, tuple) or name in GROUPS or _is_group(value):
            problems += _group(name, value)
        if isinstance(value, Mapping) and (name == KEY or _resembles_key(name)):
            problems.append(f"{name}: stands alone; put it into all: all = (hosts, {{{KEY!r}: …}})")
        if meant := _mistyped_group(name, value, attributes):
            problems.append(f"{name}: unknown group; did you mean {meant}?")
    return problems or list(_left_out(attributes))


def _left_out(attributes: Mapping[str, Any]) -> Iterator[str]:
    """Hosts of a group that are not in `all`, which pyinfra would ignore."""
    everybody = set(_names(attributes.get("all", [])))
    # Without `all` everybody counts; connectors add hosts that are not known here.
    if not everybody or any(name.startswith("@") for name in everybody):
        return
    for group, value in attributes.items():
        hosts = value[0] if isinstance(value, tuple) and value else value
        if group.startswith("_") or not _is_group(hosts):
            continue
        for number, name in enumerate(_names(hosts)):
            if name not in everybody:
                where = f"{group}[{number}]"
                yield f"{where}: {name!r:.80} is not in all; add it there, or remove it here"


def _names(group: Any) -> list[Any]:
    hosts = group[0] if isinstance(group, tuple) else group
    return [host[0] if isinstance(host, tuple) else host for host in hosts]


def data_problems(where: str, data: Any) -> list[str]:
    """The problems of the keys in the data of a level; `where` is all, a group or hosts[NAME]."""
    if not isinstance(data, Mapping):
        return [f"{where}: its data is {printed(data)}; write a mapping such as {{{KEY!r}: {{}}}}"]
    problems = []
    for key in data:
        if not isinstance(key, str):
            problems.append(f"{where}: the key {printed(key)} is no text; write names as keys")
        elif _resembles_key(key):
            problems.append(f"{where}: unknown key {key!r}; did you mean {KEY}?")
        elif key in _OUR_SETTINGS:
            problems.append(
                f"{where}: {key!r} stands beside {KEY}; put it into {KEY}, or give data of your "
                "own another name"
            )
        elif problem := name_problem(key):
            problems.append(f"{where}: {problem}")
    if KEY in data and not isinstance(data[KEY], Mapping):
        shown = printed(data[KEY])
        problems.append(f"{where}.{KEY}: must be a mapping of settings, not {shown}; write {{…}}")
    return [*problems, *ssh_problems(where, data)]


def _group(name: str, value: Any) -> list[str]:
    """The problems of a group, which is a list of hosts, or a pair of such a list and its data."""
    hosts, data = value, {}
    if isinstance(value, tuple):
        if len(value) != 2 or not isinstance(value[0], list):
            own = "" if name in GROUPS else "; or, if it is no group, begin its name with _"
            return [f"{name}: is no group of hosts; write ([hosts], {{data}}){own}"]
        hosts, data = value
    if not isinstance(hosts, list):
        return [f"{name}: is {printed(value)}, no group of hosts; write a list, [{_EXAMPLE}]"]
    problems = data_problems(name, data)
    for number, host in enumerate(hosts):
        problems += _host(f"{name}[{number}]", host)
    return [*problems, *_duplicates(name, hosts)]


def _host(where: str, host: Any) -> list[str]:
    if isinstance(host, str) and host:
        return []
    if not isinstance(host, tuple) or len(host) != 2 or not isinstance(host[0], str) or not host[0]:
        return [f"{where}: {printed(host)} is no host; write its name, or {_EXAMPLE}"]
    return data_problems(f"hosts[{host[0]}]", host[1])


def _duplicates(group: str, hosts: list[Any]) -> Iterator[str]:
    """Hosts that a group lists more than once, of which pyinfra would make one host."""
    names = [host[0] if isinstance(host, tuple) and host else host for host in hosts]
    for name in dict.fromkeys(name for name in names if isinstance(name, str)):
        if (count := names.count(name)) > 1:
            yield f"{group}: {name!r} is listed {count} times; give each host its own name"


def _is_group(value: Any) -> bool:
    """Whether pyinfra would treat a list as a group."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(host, str | tuple) for host in value)
    )


def _mistyped_group(name: str, value: Any, attributes: Mapping[str, Any]) -> str | None:
    if name in GROUPS or not isinstance(value, list | tuple | dict):
        return None
    missing = [group for group in GROUPS if group not in attributes]
    close = difflib.get_close_matches(name.lower(), missing, n=1, cutoff=0.75)
    return close[0] if close else None


@lru_cache(maxsize=256)
def _resembles_key(key: str) -> bool:
    """Whether a key is a misspelling of ours: by case, blanks, one letter, or a suffix."""
    if key == KEY:
        return False
    plain = key.strip().strip("_-").lower()
    parts = ("".join(c if c.isalnum() else " " for c in plain)).split()
    return plain == KEY or (len(parts) > 1 and parts[0] == KEY) or _one_letter_off(plain)


def _one_letter_off(text: str) -> bool:
    """Whether a text differs from our key by one letter added, removed or replaced, or by two
    swapped letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    splits = [(KEY[:at], KEY[at:]) for at in range(len(KEY) + 1)]
    return text in {
        *(a + c + b for a, b in splits for c in letters),
        *(a + b[1:] for a, b in splits if b),
        *(a + c + b[1:] for a, b in splits if b for c in letters),
        *(a + b[1] + b[0] + b[2:] for a, b in splits if len(b) > 1),
    }
