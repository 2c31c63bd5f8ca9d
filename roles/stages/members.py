"""From what hosts run and what is planned to the members and changes of a rolling update. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from roles.declaration import BALANCERS, GPU_HOSTS
from roles.fleet import Fleet, Host
from roles.launch import Change as HostChange
from roles.launch import LaunchState
from roles.plan import Replica
from roles.rolling import Change, Member, Removal, Restart

INVENTORY = "inventory"
"""The owner of the drains that an inventory declares."""


@dataclass(frozen=True)
class Found:
    """What a host ran when the update was planned, and what is to be done there; `fresh` hosts
    were started by this run, and no balancer knows them yet."""

    state: LaunchState
    changes: tuple[HostChange, ...] = ()
    fresh: bool = False


def members_of(
    fleet: Fleet, found: Mapping[str, Found], asked: Collection[str] | None = None
) -> list[Member]:
    """Every replica that is planned or runs, in the inventory's order.

    `asked` are the ids of those that balancers send requests to, None where no balancer said so:
    they alone count on hosts that the run does not reach; without them all there are taken for
    good.
    """
    return [
        member
        for host in fleet.having(GPU_HOSTS)
        for member in _on_host(fleet, host, found.get(host.name), asked)
    ]


def _on_host(
    fleet: Fleet, host: Host, found: Found | None, asked: Collection[str] | None
) -> Iterator[Member]:
    drained_by = frozenset({INVENTORY}) if host.drained or host.retired else frozenset[str]()
    planned = planned_on(fleet, host.name)
    for replica in planned:
        if found is None:
            serves = asked is None or replica.id in asked
        else:
            serves = _serves(replica.name, found)
        yield Member(replica.id, replica.service, (host.name,), serves, drained_by)
    names = {replica.name for replica in planned}
    for name in found.state.units if found else ():
        if found and name not in names:
            service = str(found.state.manifest.get(name, {}).get("service", _service_of(name)))
            yield Member(f"{host.name}/{name}", service, (host.name,), _serves(name, found))


def _serves(name: str, found: Found) -> bool:
    unit = found.state.units.get(name)
    return unit is not None and unit.up and not found.fresh


def _service_of(name: str) -> str:
    """The service of a replica that no manifest names: replicas are called SERVICE-0, SERVICE-1."""
    return name.rpartition("-")[0]


def planned_on(fleet: Fleet, host: str) -> list[Replica]:
    """The replicas that a host is to run, of all services."""
    return [replica for _, plan in fleet.on(host) for replica in plan.replicas]


def changes_of(fleet: Fleet, found: Mapping[str, Found]) -> list[Change]:
    """What is to be moved or taken down, in the inventory's order; on a fresh host all is done.

    Replicas whose only key changes restart in one step: a balancer has one key for all of them.
    """
    balanced = bool(fleet.having(BALANCERS))
    return [
        change
        for host in fleet.having(GPU_HOSTS)
        if host.name in found and not found[host.name].fresh
        for change in _changes_on(
            host.name, planned_on(fleet, host.name), found[host.name], balanced
        )
    ]


def _changes_on(
    host: str, planned: Sequence[Replica], found: Found, balanced: bool
) -> Iterator[Change]:
    by_name = {replica.name: replica for replica in planned}
    for change in found.changes:
        if change.kind in ("move", "start"):
            replica = by_name[change.subject]
            replaced = _replaced(replica, found.state)
            yield Restart(
                f"{host}/{replica.name}",
                replaces=tuple(f"{host}/{name}" for name in replaced),
                together=_one_key(replica.service) if balanced and change.changes_only_key else "",
            )
        if change.kind == "retire":
            yield Removal(f"{host}/{change.subject}")


def _one_key(service: str) -> str:
    return f"the key of {service} changes, and its engine takes only one key"


def _replaced(replica: Replica, state: LaunchState) -> list[str]:
    """Other replicas that run and hold a GPU or the port that this one needs."""
    return [
        name
        for name, entry in state.manifest.items()
        if name != replica.name
        and name in state.units
        and (entry["port"] == replica.port or set(entry["gpus"]) & set(replica.gpus))
    ]
