"""The saved form of a plan, a file to commit: what runs where, without figures and reasons."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from roles.host import parse_yaml
from roles.plan.plan import Plan, Replica

HEADER = (
    "# Saved by `python -m roles.topology fleet INVENTORY --save`: a deploy whose plan is another\n"
    "# stops, unless --data accept_plan=true.\n"
)


def saved(plans: Sequence[Plan]) -> str:
    """The file's text: services, hosts and replicas in the plans' order."""
    made = {plan.service: {"model": plan.model, "hosts": _hosts(plan)} for plan in plans}
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


class SavedService(BaseModel):
    """A service as `saved` writes it."""

    model_config = _STRICT

    model: Text
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
    """Descriptions of the differences between saved plans and these; ValueError as
    `check_saved`."""
    old = check_saved(text)
    models = {service: old[service]["model"] for service in old}
    before = {
        f"{host}/{name}": replicas[name]
        for service in old
        for host, replicas in old[service]["hosts"].items()
        for name in replicas
    }
    now = {f"{one.host}/{one.name}": _entry(one) for plan in plans for one in plan.replicas}
    changed = _of_services(models, {plan.service: plan.model for plan in plans})
    return [*changed, *_of_replicas(before, now)]


def _hosts(plan: Plan) -> dict[str, Any]:
    return {
        host.host: {replica.name: _entry(replica) for replica in host.replicas}
        for host in plan.hosts
    }


def _of_services(before: Mapping[str, Any], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield f"{name} serves {now.get(name, 'nothing')}, was {before.get(name, 'nothing')}"


def _of_replicas(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            yield f"{name} is gone (was {_describe(before[name])})"
        elif name not in before:
            yield f"{name} is new: {_describe(now[name])}"
        elif differences := _changed(before[name], now[name]):
            yield f"{name} {differences}"


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A description of a replica's changed fields, "" if there are none. Older files name no
    engine."""
    default = {"engine"} - before.keys()
    differs = [
        key
        for key in dict.fromkeys([*now, *before])
        if key not in default and before.get(key) != now.get(key)
    ]
    of_now, of_before = (
        _describe({key: entry.get(key, "not set") for key in differs}) for entry in (now, before)
    )
    return f"has {of_now}, was {of_before}" if differs else ""


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
    return entry | ({} if replica.p2p else {"p2p": False})


def _describe(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in entry.items())
