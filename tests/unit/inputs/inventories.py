"""A good inventory as Python data, small changes to it, and what becomes of it."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from roles.declaration import DeclarationError
from roles.declaration.plain import declaration_of
from roles.fleet import Fleet, build

GONE = object()
"""In place of a value: the key is left out."""
# Where a place begins, as it is written in the table.
ROOTS: Mapping[str, tuple[Any, ...]] = {
    "llm": ("all", 1, "llm"),
    "service": ("all", 1, "llm", "services", 0),
    "balancer": ("all", 1, "llm", "balancer"),
    "vllm": ("all", 1, "llm", "engines", "vllm"),
    "launch": ("all", 1, "llm", "launch"),
    "validation": ("all", 1, "llm", "validation"),
    "driver": ("all", 1, "llm", "driver"),
    "tuning": ("all", 1, "llm", "tuning"),
    "gpu1": ("gpu_hosts", 0, 1),
    "gpu1llm": ("gpu_hosts", 0, 1, "llm"),
    "gpu2": ("gpu_hosts", 1, 1),
    "gpu2llm": ("gpu_hosts", 1, 1, "llm"),
    "lb1": ("balancers", 0, 1),
    "lb1llm": ("balancers", 0, 1, "llm"),
    "file": (),
}


def good(folder: Path) -> dict[str, Any]:
    """The global names of an inventory file that is right; its keys lie in `folder`."""
    gpu_hosts = [
        ["gpu-1", {"ssh_hostname": "10.0.0.11", "llm": {"gpus": "2x NVIDIA L40S"}}],
        ["gpu-2", {"ssh_hostname": "10.0.0.12", "llm": {"gpus": "4x NVIDIA A10G"}}],
    ]
    balancers = [["lb-1", {"ssh_hostname": "10.0.0.10", "llm": {}}]]
    settings = {
        "services": [{"name": "q", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}],
        "engines": {"vllm": {}},
        "balancer": {"api_key_file": str(folder / "api.key")},
        **{name: {} for name in ("launch", "validation", "driver", "tuning")},
    }
    names = [host[0] for host in (*gpu_hosts, *balancers)]
    return {"gpu_hosts": gpu_hosts, "balancers": balancers, "all": [names, {"llm": settings}]}


def changed(folder: Path, *changes: tuple[str, Any] | Callable[[dict[str, Any]], Any]):
    """The good inventory's names with changes: a place and its new value, or a function.

    A text's "{files}" stands for the folder.
    """
    names = good(folder)
    for change in changes:
        if callable(change):
            change(names)
        else:
            put(names, change[0], filled(change[1], folder))
    return as_written(names)


def put(names: dict[str, Any], place: str, value: Any) -> None:
    """Set what stands at a place such as "service.route.port"; a key may hold dots after "!"."""
    place, _, last = place.partition("!")
    root, *steps = place.strip(".").split(".")
    path = [*ROOTS[root], *steps, *([last] if last else [])]
    at: Any = names
    for step in path[:-1]:
        at = at.setdefault(step, {}) if isinstance(at, dict) else at[int(step)]
    if value is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = deepcopy(value)


def filled(value: Any, folder: Path) -> Any:
    """A value whose texts name the folder."""
    if isinstance(value, str):
        return value.replace("{files}", str(folder))
    if isinstance(value, dict):
        return {key: filled(one, folder) for key, one in value.items()}
    return [filled(one, folder) for one in value] if isinstance(value, list) else value


def as_written(names: dict[str, Any]) -> dict[str, Any]:
    """Hosts and `all` as tuples, which a table cannot change in place."""
    for name in ("gpu_hosts", "balancers"):
        hosts = names.get(name)
        if isinstance(hosts, list):
            names[name] = [tuple(host) if isinstance(host, list) else host for host in hosts]
    if isinstance(names.get("all"), list):
        names["all"] = tuple(names["all"])
    return names


def fleet(folder: Path, names: Mapping[str, Any]) -> Fleet:
    """The fleet of an inventory file with these global names."""
    declaration = declaration_of(folder / "site.py", names)
    assert declaration is not None
    return build(declaration)


def problems(folder: Path, names: Mapping[str, Any]) -> list[str]:
    """What is wrong with an inventory file with these names; nothing else may be raised."""
    try:
        fleet(folder, names)
    except DeclarationError as error:
        return error.problems
    return []


def expect(found: list[str], place: str, *words: str) -> None:
    """The first problem is of a place and has these words; none is there twice."""
    assert found, "nothing was refused"
    assert found[0].startswith(f"{place}:"), found
    assert all(word in found[0] for word in words), found
    assert len(found) == len(set(found))
