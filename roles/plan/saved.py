"""A plan as a file that is committed: what runs where, without the figures that led to it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from roles.plan.plan import Plan, Replica

HEADER = (
    "# Saved by `python -m roles.topology fleet INVENTORY --save`: a deploy whose plan is another\n"
    "# stops, unless --data accept_plan=true.\n"
)


def saved(plans: Sequence[Plan]) -> str:
    """The file's text: services, hosts and replicas in the plans' order."""
    made = {plan.service: {"model": plan.model, "hosts": _hosts(plan)} for plan in plans}
    return HEADER + yaml.safe_dump(made, sort_keys=False, default_flow_style=None, width=1000)


def plan_differences(text: str, plans: Sequence[Plan]) -> list[str]:
    """What differs between saved plans and these, in words; ValueError for another file."""
    try:
        old: Mapping[str, Any] = yaml.safe_load(text)
        models = {service: old[service]["model"] for service in old}
        before = {
            f"{host}/{name}": replicas[name]
            for service in old
            for host, replicas in old[service]["hosts"].items()
            for name in replicas
        }
    except (yaml.YAMLError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"it is no saved plan ({error}); save it again") from None
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
            yield f"{name} is gone (was {_words(before[name])})"
        elif name not in before:
            yield f"{name} is new: {_words(now[name])}"
        elif told := _changed(before[name], now[name]):
            yield f"{name} {told}"


def _changed(before: Any, now: Mapping[str, Any]) -> str:
    """What a replica has now and had before, as far as they differ; a file of before there were
    several engines says nothing of them."""
    if not isinstance(before, Mapping):
        return f"is {_words(now)}, was {_words(before)}"
    unsaid = {"engine"} - before.keys()
    differs = [
        key
        for key in dict.fromkeys([*now, *before])
        if key not in unsaid and before.get(key) != now.get(key)
    ]
    of_now, of_before = (
        _words({key: entry.get(key, "not set") for key in differs}) for entry in (now, before)
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


def _words(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return repr(entry)
    return ", ".join(f"{key} {value}" for key, value in entry.items())
