"""The smallest steps of a rolling update: replicas and hosts that must change together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from roles.rolling.members import Change, HostRestart, Member, Removal, Restart


@dataclass(frozen=True)
class Move:
    """Replicas and hosts that change in one step, because none of them can change alone.

    `hosts` take part; `restarted_hosts` restart as a whole. `together` says why replicas of several
    hosts cannot restart one after the other. Balancers use these again only at the end of the run.
    """

    hosts: tuple[str, ...]
    restarts: tuple[Member, ...] = ()
    removals: tuple[Member, ...] = ()
    restarted_hosts: tuple[str, ...] = ()
    together: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[Member, ...]:
        return self.restarts + self.removals

    @property
    def replicas(self) -> tuple[str, ...]:
        return tuple(member.id for member in self.members)

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(member.service for member in self.members))

    def __str__(self) -> str:
        return ", ".join((*self.replicas, *(f"host {name}" for name in self.restarted_hosts)))


def moves(members: Sequence[Member], changes: Sequence[Change]) -> tuple[Move, ...]:
    """Group the changes into moves, in the order of the members' hosts.

    Raises ValueError if a change names an unknown member or contradicts another change.
    """
    by_id = {member.id: member for member in members}
    on_host: dict[str, list[Member]] = {}
    for member in members:
        for host in member.hosts:
            on_host.setdefault(host, []).append(member)
    leaving = removed(changes)
    _check(by_id, changes)
    groups = _Groups()
    for change in changes:
        groups.join(_ties(change, on_host))
    position = {id: i for i, id in enumerate(by_id)}
    made = [_move(group, members, position, leaving) for group in groups.all()]
    host_position = {host: i for i, host in enumerate(on_host)}

    def order(move: Move) -> tuple[int, int]:
        # Hosts without replicas come last: nothing waits for them.
        first = min((position[id] for id in move.replicas), default=0)
        return host_position.get(move.hosts[0], len(host_position)), first

    return tuple(sorted(made, key=order))


def removed(changes: Iterable[Change]) -> frozenset[str]:
    """The replicas that are removed for good."""
    changes = tuple(changes)
    restarted = {change.replica for change in changes if isinstance(change, Restart)}
    replaced = {old for change in changes if isinstance(change, Restart) for old in change.replaces}
    gone = {change.replica for change in changes if isinstance(change, Removal)}
    return frozenset(gone | replaced - restarted)


def _check(by_id: Mapping[str, Member], changes: Sequence[Change]) -> None:
    restarted = {change.replica for change in changes if isinstance(change, Restart)}
    for change in changes:
        if isinstance(change, HostRestart):
            continue
        named = (change.replica, *(change.replaces if isinstance(change, Restart) else ()))
        for replica in named:
            if replica not in by_id:
                raise ValueError(f"{replica} changes, but is no member of an upstream")
        if isinstance(change, Removal) and change.replica in restarted:
            raise ValueError(f"{change.replica} is both restarted and removed")


# A replica by its id, a host that restarts, or why replicas move together.
_Item = tuple[str, str]


def _ties(change: Change, on_host: Mapping[str, Sequence[Member]]) -> list[_Item]:
    """The items that a change ties together."""
    if isinstance(change, HostRestart):
        replicas = [("replica", member.id) for member in on_host.get(change.host, ())]
        return [("host", change.host), *replicas]
    replicas = [("replica", change.replica)]
    if isinstance(change, Restart):
        replicas += [("replica", old) for old in change.replaces]
        replicas += [("together", change.together)] if change.together else []
    return replicas


class _Groups:
    """Disjoint sets of items that were joined."""

    def __init__(self) -> None:
        self._parent: dict[_Item, _Item] = {}

    def _root(self, item: _Item) -> _Item:
        self._parent.setdefault(item, item)
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def join(self, items: Sequence[_Item]) -> None:
        for item in items:
            self._parent[self._root(item)] = self._root(items[0])

    def all(self) -> list[list[_Item]]:
        sets: dict[_Item, list[_Item]] = {}
        for item in self._parent:
            sets.setdefault(self._root(item), []).append(item)
        return list(sets.values())


def _move(
    group: Sequence[_Item],
    members: Sequence[Member],
    position: Mapping[str, int],
    leaving: frozenset[str],
) -> Move:
    moved = [
        members[i] for i in sorted(position[name] for kind, name in group if kind == "replica")
    ]
    restarted = [name for kind, name in group if kind == "host"]
    hosts = dict.fromkeys([host for member in moved for host in member.hosts] + restarted)
    return Move(
        hosts=tuple(hosts),
        restarts=tuple(member for member in moved if member.id not in leaving),
        removals=tuple(member for member in moved if member.id in leaving),
        restarted_hosts=tuple(host for host in hosts if host in restarted),
        together=tuple(name for kind, name in group if kind == "together"),
    )
