"""The members and changes of a rolling update, made from what hosts run and the plan. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from roles.declaration import BALANCERS, GPU_HOSTS
from roles.fleet import Fleet
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
    fleet: Fleet,
    found: Mapping[str, Found],
    balanced: Balanced | None = None,
    failed: Collection[str] = (),
) -> list[Member]:
    """Every replica that is planned or runs, in the inventory's order.

    `balanced` is None where no balancer answered. Then replicas on hosts outside the run count as
    serving, and replicas that the inventory drains may still get requests, unless there is no
    balancer. `failed` are hosts that failed in this run.
    """
    seen = _Seen(fleet, found, balanced, frozenset(failed))
    return [member for host in fleet.with_role(GPU_HOSTS) for member in _on_host(seen, host.name)]


@dataclass(frozen=True)
class _Seen:
    """What members are made from."""

    fleet: Fleet
    found: Mapping[str, Found]
    balanced: Balanced | None
    failed: frozenset[str]

    def old_hosts(self, host: str, name: str) -> list[str]:
        """The hosts of a unit's replica, by its host's manifest, that take part in a change of it.

        A part without its head does no harm: it waits, and starts no engine. So a host that cannot
        take part is left out, but for a head that this run could reach: it may serve.
        """
        hosts = _hosts_by_manifest(self.found.get(host), name)
        whole = f"{next(iter(hosts), host)}/{name}"
        if hosts and hosts[0] in self.found and self._whole(host, name) != whole:
            return []
        usable = [one for one in hosts if one in self.fleet.addresses and one not in self.failed]
        return [
            one
            for one in usable
            if (self._whole(one, name) == whole if one in self.found else one == hosts[0])
        ]

    def _whole(self, host: str, name: str) -> str:
        return whole_of(self.fleet, host, name, self.found)


def _hosts_by_manifest(found: Found | None, name: str) -> tuple[str, ...]:
    entry = found.state.manifest.get(name, {}) if found else {}
    return tuple(map(str, entry.get("hosts") or ()))


def _on_host(seen: _Seen, host: str) -> Iterator[Member]:
    fleet, found = seen.fleet, seen.found
    planned, own = fleet_replicas(fleet, host), found.get(host)
    for replica in planned:
        old = seen.old_hosts(host, replica.name)
        hosts = tuple(dict.fromkeys((*replica.hosts, *old)))
        drained_by = _drained_by(fleet, hosts, replica.id, seen.balanced)
        serves = _whole_serves(replica, hosts, found, seen.balanced)
        leaves = frozenset(old) - set(replica.hosts)
        yield Member(replica.id, replica.service, hosts, serves, drained_by, leaves)
    names = {replica.name for replica in planned}
    for name in own.state.units if own else ():
        # A part of a replica belongs to its head, planned or not.
        if own and name not in names and whole_of(fleet, host, name, found) == f"{host}/{name}":
            yield _unplanned(seen, host, name, own)


def _unplanned(seen: _Seen, host: str, name: str, own: Found) -> Member:
    """A replica that runs and is not planned, or a part that no head knows any more."""
    id, service = f"{host}/{name}", own.state.manifest.get(name, {}).get("service")
    alone = next(iter(_hosts_by_manifest(own, name)), host) != host
    hosts = dict.fromkeys((host, *seen.old_hosts(host, name)))
    if host in seen.failed and len(hosts) > 1:
        del hosts[host]
    if name in {one.name for one in parts_on(seen.fleet, host)}:
        # Its place is taken by a part of another replica.
        hosts = {host: None}
    return Member(
        *(id, str(service or _service_of(name)), tuple(hosts)),
        serves=not alone and _serves(name, own),
        drained_by=_drained_by(seen.fleet, hosts, id, seen.balanced),
    )


def whole_of(fleet: Fleet, host: str, name: str, found: Mapping[str, Found]) -> str:
    """The id of the replica that a unit of a host is, or is a part of, by the manifest.

    Of a part that its head does not know, or no longer, nobody else is left.
    """
    head = next(iter(_hosts_by_manifest(found[host], name)), host)
    runs = head in found and name in found[head].state.units
    runs = runs and (head == host or host in _hosts_by_manifest(found[head], name))
    own = fleet_replicas(fleet, head) if head in fleet.addresses else ()
    planned = any(one.name == name and host in one.hosts for one in own)
    return f"{head}/{name}" if runs or planned else f"{host}/{name}"


def _whole_serves(
    replica: Replica,
    hosts: tuple[str, ...],
    found: Mapping[str, Found],
    balanced: Balanced | None,
) -> bool:
    """Whether a replica serves: all its parts run, as far as this run sees them."""
    seen = [found[host] for host in hosts if host in found]
    if found.get(replica.host) is None:
        return balanced is None or replica.id in balanced.in_service
    return all(_serves(replica.name, one) for one in seen)


def _drained_by(
    fleet: Fleet, hosts: Collection[str], id: str, balanced: Balanced | None
) -> frozenset[str]:
    if balanced is not None:
        return balanced.keep_out(id)
    known = {one.name: one for one in fleet.hosts}
    own = [known[name] for name in hosts if name in known]
    declared = any(one.drained or one.retired for one in own) and not fleet.with_role(BALANCERS)
    return frozenset({INVENTORY}) if declared else frozenset()


def _serves(name: str, found: Found) -> bool:
    unit = found.state.units.get(name)
    return unit is not None and unit.up and not found.fresh


def _service_of(name: str) -> str:
    """The service of a replica that is in no manifest, by its name: SERVICE-0, SERVICE-1 …"""
    return name.rpartition("-")[0]


def fleet_replicas(fleet: Fleet, host: str) -> list[Replica]:
    """The replicas whose head, or only host, is this one, of all services."""
    return [replica for _, plan in fleet.on(host) for replica in plan.replicas]


def parts_on(fleet: Fleet, host: str) -> list[Replica]:
    """A host's parts of replicas with another head, of all services."""
    return [part for _, plan in fleet.on(host) for part in plan.parts]


def planned_on(fleet: Fleet, host: str) -> list[Replica]:
    """What a host is to run, of all services: replicas, and parts of replicas."""
    return [*fleet_replicas(fleet, host), *parts_on(fleet, host)]


def unjoined(
    fleet: Fleet, host: str, state: LaunchState, reached: Collection[str]
) -> dict[str, str]:
    """A host's planned parts that do not run, and whose other hosts a run does not all reach, by
    name with what to do: nobody knows why they do not, as of a quarantine there."""
    found = {}
    for replica in planned_on(fleet, host):
        missing = [one for one in replica.hosts if one not in reached]
        unit = state.units.get(replica.name)
        if missing and not (unit and unit.up):
            limits = " ".join(f"--limit {one}" for one in missing)
            found[replica.name] = f"not all of its hosts are in this run: add {limits}"
    return found


def changes_of(fleet: Fleet, found: Mapping[str, Found]) -> list[Change]:
    """The replicas to move or take down, in the inventory's order; none on fresh hosts.

    A replica over several hosts moves as one, whichever of its parts has to. If an engine accepts
    only one key and that changes, all replicas of its service restart in one step: a balancer has
    one key for all of them.
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
    changes = [
        change
        for name in known
        for change in _changes_on(fleet, name, planned[name], found, one_key)
    ]
    return _without_contradictions(changes)


def _without_contradictions(changes: Iterable[Change]) -> list[Change]:
    """Each replica's changes as one; what restarts is not removed."""
    restarts: dict[str, Restart] = {}
    removals: dict[str, Removal] = {}
    order: dict[str, None] = {}
    for change in changes:
        if isinstance(change, Restart):
            before = restarts.get(change.replica, change)
            replaces = tuple(dict.fromkeys((*before.replaces, *change.replaces)))
            restarts[change.replica] = replace(
                before, replaces=replaces, together=before.together or change.together
            )
        elif isinstance(change, Removal):
            removals[change.replica] = change
        else:
            continue
        order[change.replica] = None
    return [restarts.get(id) or removals[id] for id in order]


def _changes_on(
    fleet: Fleet,
    host: str,
    planned: Mapping[str, Replica],
    found: Mapping[str, Found],
    one_key: Collection[str],
) -> Iterator[Change]:
    state = found[host].state
    for change in found[host].changes:
        name = change.subject
        if change.kind in ("move", "start"):
            replica = planned[name]
            # The unit may have been a replica of its own, or a part of another one.
            old = [*([name] if name in state.units else []), *_replaced(replica, state)]
            replaced = dict.fromkeys(whole_of(fleet, host, one, found) for one in old)
            yield Restart(
                replica.id,
                replaces=tuple(one for one in replaced if one != replica.id),
                together=_key_reason(replica.service) if replica.service in one_key else "",
            )
        if change.kind == "retire":
            yield Removal(whole_of(fleet, host, name, found))


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
