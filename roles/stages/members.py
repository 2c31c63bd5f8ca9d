"""The members and changes of a rolling update, made from what hosts run and the plan. Pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from roles.declaration import BALANCERS, GPU_HOSTS
from roles.fleet import Fleet, Host
from roles.launch import Change as HostChange
from roles.launch import LaunchState
from roles.plan import Replica
from roles.rolling import ROLLING_UPDATE, Change, Member, Removal, Restart

INVENTORY = "inventory"
"""The owner of the drains that an inventory declares."""


@dataclass(frozen=True)
class Found:
    """What a host ran when the update was planned, and what is to be done there.

    A `fresh` host was started by this run, and no balancer knows it yet.
    """

    state: LaunchState
    changes: tuple[HostChange, ...] = ()
    fresh: bool = False


@dataclass(frozen=True)
class Balanced:
    """The state of all balancers: ids of replicas that all of them send requests to, and the owners
    of drains by replica."""

    in_service: frozenset[str]
    drains: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def with_another(self, other: "Balanced") -> "Balanced":
        """The state of these balancers and another one together."""
        names = self.drains.keys() | other.drains.keys()
        nobody = frozenset[str]()
        drains = {id: self.drains.get(id, nobody) | other.drains.get(id, nobody) for id in names}
        return Balanced(self.in_service & other.in_service, drains)

    def keep_out(self, id: str) -> frozenset[str]:
        """Who keeps requests from a replica; empty where it gets some.

        Where no owner drains it, an earlier rolling update has not undrained it.
        """
        if id in self.in_service:
            return frozenset()
        return self.drains.get(id) or frozenset({ROLLING_UPDATE})


def members_of(
    fleet: Fleet, found: Mapping[str, Found], balanced: Balanced | None = None
) -> list[Member]:
    """Every replica that is planned or runs, in the inventory's order.

    `balanced` is None where no balancer answered. Then replicas on hosts outside the run count as
    serving, and replicas that the inventory drains may still get requests, unless there is no
    balancer.
    """
    return [
        member
        for host in fleet.with_role(GPU_HOSTS)
        for member in _on_host(fleet, host, found.get(host.name), balanced)
    ]


def _on_host(
    fleet: Fleet, host: Host, found: Found | None, balanced: Balanced | None
) -> Iterator[Member]:
    planned = planned_on(fleet, host.name)
    for replica in planned:
        if found is None:
            serves = balanced is None or replica.id in balanced.in_service
        else:
            serves = _serves(replica.name, found)
        drained_by = _drained_by(fleet, host, replica.id, balanced)
        yield Member(replica.id, replica.service, (host.name,), serves, drained_by)
    names = {replica.name for replica in planned}
    for name in found.state.units if found else ():
        if found and name not in names:
            id = f"{host.name}/{name}"
            service = str(found.state.manifest.get(name, {}).get("service", _service_of(name)))
            drained_by = _drained_by(fleet, host, id, balanced)
            yield Member(id, service, (host.name,), _serves(name, found), drained_by)


def _drained_by(fleet: Fleet, host: Host, id: str, balanced: Balanced | None) -> frozenset[str]:
    if balanced is not None:
        return balanced.keep_out(id)
    declared = (host.drained or host.retired) and not fleet.with_role(BALANCERS)
    return frozenset({INVENTORY}) if declared else frozenset()


def _serves(name: str, found: Found) -> bool:
    unit = found.state.units.get(name)
    return unit is not None and unit.up and not found.fresh


def _service_of(name: str) -> str:
    """The service of a replica that is in no manifest, by its name: SERVICE-0, SERVICE-1 …"""
    return name.rpartition("-")[0]


def planned_on(fleet: Fleet, host: str) -> list[Replica]:
    """The replicas that a host is to run, of all services."""
    return [replica for _, plan in fleet.on(host) for replica in plan.replicas]


def changes_of(fleet: Fleet, found: Mapping[str, Found]) -> list[Change]:
    """The replicas to move or take down, in the inventory's order; none on fresh hosts.

    If an engine accepts only one key and that changes, all replicas of its service restart in one
    step: a balancer has one key for all of them.
    """
    hosts = [one.name for one in fleet.with_role(GPU_HOSTS)]
    known = {name: found[name] for name in hosts if name in found and not found[name].fresh}
    planned = {name: {r.name: r for r in planned_on(fleet, name)} for name in known}
    one_key = {
        planned[name][change.subject].service
        for name, one in known.items()
        for change in one.changes
        if change.replaces_only_key and fleet.with_role(BALANCERS)
    }
    return [
        change
        for name, one in known.items()
        for change in _changes_on(name, planned[name], one, one_key)
    ]


def _changes_on(
    host: str, planned: Mapping[str, Replica], found: Found, one_key: Collection[str]
) -> Iterator[Change]:
    for change in found.changes:
        if change.kind in ("move", "start"):
            replica = planned[change.subject]
            replaced = _replaced(replica, found.state)
            yield Restart(
                f"{host}/{replica.name}",
                replaces=tuple(f"{host}/{name}" for name in replaced),
                together=_key_reason(replica.service) if replica.service in one_key else "",
            )
        if change.kind == "retire":
            yield Removal(f"{host}/{change.subject}")


def _key_reason(service: str) -> str:
    return f"the key of {service} changes, and its engine takes only one key"


def _replaced(replica: Replica, state: LaunchState) -> list[str]:
    """Other replicas of the manifest that have a unit and use a GPU or the port of this one."""
    return [
        name
        for name, entry in state.manifest.items()
        if name != replica.name
        and name in state.units
        and (entry["port"] == replica.port or set(entry["gpus"]) & set(replica.gpus))
    ]
