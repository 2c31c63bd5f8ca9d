"""The saved form of a plan, a file to commit: what runs where, and the settings and GPUs that it
follows from, without figures and reasons."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from roles.hardware import Gpu, summary
from roles.host import parse_yaml
from roles.plan.difference import ReplicaChange, entry_changes, grouped, placed
from roles.plan.plan import Plan, Replica, Shape

HEADER = (
    "# Saved by `python -m roles.topology fleet INVENTORY --save`: a deploy whose plan is another\n"
    "# stops, unless --data accept_plan=true.\n"
)


def saved(plans: Sequence[Plan]) -> str:
    """The file's text: services, hosts and replicas in the plans' order."""
    made = {plan.service: _service(plan) for plan in plans}
    return HEADER + yaml.safe_dump(made, sort_keys=False, default_flow_style=None, width=1000)


_STRICT = ConfigDict(extra="forbid", strict=True, defer_build=True)
Number = Annotated[int, Field(ge=1, lt=2**31)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]


class SavedReplica(BaseModel):
    """A replica as `saved` writes it."""

    model_config = _STRICT

    gpus: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    tensor_parallel_size: Number
    pipeline_parallel_size: Number
    port: Annotated[int, Field(ge=1, le=65535)]
    max_model_len: Number
    engine: Text | None = None
    enable_expert_parallel: bool | None = None
    tensor_split: list[float] | None = None
    p2p: bool | None = None
    members: dict[Text, list[Annotated[int, Field(ge=0, lt=2**31)]]] | None = None
    executor: Text | None = None


class SavedMachine(BaseModel):
    """What a host had for the service, in words."""

    model_config = _STRICT

    gpus: Annotated[str, Field(max_length=10_000)]
    links: Annotated[str, Field(max_length=10_000)] | None = None


class SavedService(BaseModel):
    """A service as `saved` writes it."""

    model_config = _STRICT

    model: Text
    settings: dict[Text, Annotated[str, Field(max_length=100_000)]] | None = None
    machines: dict[Text, SavedMachine] | None = None
    hosts: dict[Text, dict[Text, SavedReplica]]


def check_saved(text: str) -> Mapping[str, Any]:
    """The data of a saved plan's text; the ValueError's text continues the file's name.

    A file that was cut between two lines may still be valid: then it differs from the plan.
    """
    found = parse_yaml(text)
    if found is None:
        raise ValueError("is empty")
    try:
        TypeAdapter(dict[Text, SavedService]).validate_python(found, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        fault = f"{where}: {first['msg']}" if where else first["msg"]
        raise ValueError(f"is no saved plan ({fault})") from None
    hosts = [host for service in found.values() for host in service["hosts"].values()]
    replicas = [replica for host in hosts for replica in host.values()]
    # Older files, from before there were several engines, name none.
    if not text.endswith("\n") or len({"engine" in replica for replica in replicas}) > 1:
        raise ValueError("is cut off at its end")
    return found


def plan_differences(text: str, plans: Sequence[Plan]) -> list[str]:
    """Descriptions of the differences between saved plans and these, by replica, each with what
    led to it; ValueError as `check_saved`."""
    old = check_saved(text)
    new = {plan.service: _service(plan) for plan in plans}
    changes = [
        change
        for service in sorted(old.keys() | new.keys())
        for change in _of_service(service, old.get(service), new.get(service))
    ]
    return grouped(changes)


def _service(plan: Plan) -> dict[str, Any]:
    machines = {
        host.host: {"gpus": _gpus(host.gpus), **({"links": host.links} if host.links else {})}
        for host in plan.hosts
    }
    return {
        "model": plan.model,
        "settings": dict(plan.settings),
        "machines": machines,
        "hosts": {
            host.host: {replica.name: _entry(replica) for replica in host.replicas}
            for host in plan.hosts
        },
    }


def _gpus(gpus: Sequence[Gpu]) -> str:
    """GPUs in words, with their indexes where they are a part of a host's."""
    indexes = [gpu.index for gpu in gpus]
    part = f" {','.join(map(str, indexes))}" if indexes != list(range(len(gpus))) else ""
    return f"{summary(gpus)}{part}"


def _entry(replica: Replica) -> dict[str, Any]:
    shape = replica.shape
    entry: dict[str, Any] = {
        "gpus": list(replica.gpus),
        "tensor_parallel_size": shape.tensor_parallel,
        "pipeline_parallel_size": shape.pipeline_parallel,
        "port": replica.port,
        "max_model_len": replica.max_model_len,
        "engine": replica.engine,
    }
    entry |= {"enable_expert_parallel": True} if shape.expert_parallel else {}
    entry |= {"tensor_split": list(shape.tensor_split)} if shape.tensor_split else {}
    if replica.members:
        entry["members"] = {host: list(gpus) for host, gpus in replica.members}
        entry |= {"executor": replica.executor} if replica.executor != "engine" else {}
    return entry | ({} if replica.p2p else {"p2p": False})


def _of_service(
    name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> Iterator[ReplicaChange]:
    """The changes of a service's replicas, and of its model."""
    before, now = _replicas(old), _replicas(new)
    if old is None or new is None:
        cause = "the service is new" if old is None else "the service is gone"
        yield ReplicaChange(name, cause)
    elif old["model"] != new["model"]:
        yield ReplicaChange(name, f"model {old['model']} → {new['model']}")
    for id in sorted(before.keys() | now.keys()):
        words = _words(before.get(id), now.get(id))
        cause = _cause(id.partition("/")[0], old, new) if words and old and new else ""
        if words:
            yield ReplicaChange(id, words + (f", because {cause}" if cause else ""))


def _replicas(service: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    hosts = service["hosts"] if service else {}
    return {
        f"{host}/{name}": _shown(replica)
        for host, replicas in hosts.items()
        for name, replica in replicas.items()
    }


def _shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A saved replica as differences name it. Older files name no engine."""
    shape = Shape(
        entry["tensor_parallel_size"],
        entry["pipeline_parallel_size"],
        bool(entry.get("enable_expert_parallel")),
        tuple(entry.get("tensor_split") or ()),
    )
    shown = {name: entry[name] for name in ("gpus", "port", "max_model_len")}
    shown |= {"shape": str(shape), "tensor_split": shape.tensor_split}
    shown |= {"engine": entry["engine"]} if entry.get("engine") else {}
    shown["hosts"] = [
        f"{host} {','.join(map(str, gpus))}" for host, gpus in (entry.get("members") or {}).items()
    ]
    shown["executor"] = entry.get("executor") or "engine"
    return shown | {"p2p": "without P2P" if entry.get("p2p") is False else "with P2P"}


def _words(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    if before is None and now is not None:
        return f"new: {placed(now)}"
    if before is not None and now is None:
        return f"goes away: {placed(before)}"
    return "; ".join(entry_changes(before or {}, now or {}).values())


def _cause(host: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What the change of a host's replicas follows from; "" where the file does not say."""
    if old.get("machines") is None:
        # Earlier versions of this project did not save it.
        return ""
    machines, were = new["machines"], old["machines"]
    causes = [*_changed("model", old["model"], new["model"])]
    causes += _engine_changed(old, new)
    causes += _all_changed(old.get("settings") or {}, new["settings"])
    if host not in were or host not in machines:
        causes.append("the host is new" if host in machines else "the host is gone")
    else:
        of_host = _all_changed(were[host], machines[host])
        # Other GPUs have other links.
        causes += of_host[:1]
    others = sorted(
        name for name in were.keys() | machines.keys() if were.get(name) != machines.get(name)
    )
    if not causes and others and "concurrency" in new["settings"]:
        return f"the load is shared with other hosts: {', '.join(others)} changed"
    return "; ".join(causes) or "something else than the service's settings and the GPUs changed"


def _engine_changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The change of a service's engines; none without replicas, or where older files name none."""
    before, now = (
        dict.fromkeys(one["engine"] for one in _replicas(service).values() if "engine" in one)
        for service in (old, new)
    )
    if not before or not now:
        return []
    return _changed("engine", " and ".join(sorted(before)), " and ".join(sorted(now)))


def _all_changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        text
        for name in dict.fromkeys((*before, *now))
        for text in _changed(name, before.get(name), now.get(name))
    ]


def _changed(name: str, before: str | None, now: str | None) -> list[str]:
    if before == now:
        return []
    return [f"{name} {'unset' if before is None else before} → {'unset' if now is None else now}"]
