"""Puts moves into batches so that no upstream becomes empty if another order avoids it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roles.rolling.moves import Move
from roles.rolling.upstreams import Effect, Upstreams, effects, emptied

# Services whose interruption is announced, by move.
AnnouncedInterruptions = Mapping[Move, tuple[str, ...]]


@dataclass(frozen=True)
class BatchedMoves:
    """Moves in batches. `unplaced` moves would empty an upstream in every batch that is left."""

    batches: tuple[tuple[Move, ...], ...]
    unplaced: tuple[Move, ...]


def units(
    moves: Sequence[Move], upstreams: Upstreams, announced: AnnouncedInterruptions
) -> list[list[Move]]:
    """Moves that restart together: those of one host.

    If that empties an upstream, the replicas of that service restart one after the other.
    """
    by_host: dict[str, list[Move]] = {}
    for move in moves:
        by_host.setdefault(move.hosts[0], []).append(move)
    found = [
        unit
        for own in by_host.values()
        for unit in _split_by_service(own, _emptied_together(own, upstreams, announced))
    ]
    # Pure removals go last: their replacements on other hosts serve by then.
    return sorted(
        found,
        key=lambda unit: (_waits_for_end_of_run(unit), all(_only_removes(move) for move in unit)),
    )


def _only_removes(move: Move) -> bool:
    return bool(move.removals) and not move.restarts


def _waits_for_end_of_run(unit: Sequence[Move]) -> bool:
    """Whether its replicas are out until the end of the run, so that they should move late."""
    return any(move.together for move in unit)


def _emptied_together(
    own: Sequence[Move], upstreams: Upstreams, announced: AnnouncedInterruptions
) -> set[str]:
    """Services that the moves of one host empty together, although no single move does."""
    expected = {service for move in own for service in announced.get(move, ())}
    return set(upstreams.necessarily_emptied(own)) - expected


def _split_by_service(own: Sequence[Move], services: set[str]) -> list[list[Move]]:
    """Split the moves of one host, so that a unit has at most one move of each given service."""
    found: list[list[Move]] = []
    used = dict.fromkeys(services, 0)
    for move in own:
        bound = services.intersection(move.services)
        index = max((used[service] for service in bound), default=0)
        used.update(dict.fromkeys(bound, index + 1))
        found += [[] for _ in range(index + 1 - len(found))]
        found[index].append(move)
    return [unit for unit in found if unit]


def fill_batches(
    units: Sequence[Sequence[Move]],
    upstreams: Upstreams,
    announced: AnnouncedInterruptions,
    max_batches: int,
) -> BatchedMoves:
    """Put the units into at most `max_batches` batches: one host at a time if that many are
    enough."""
    hosts = {unit[0].hosts[0] for unit in units}
    batches = _Batches(upstreams, announced, max_batches)
    batches.usual_size = -(-len(hosts) // max_batches)
    batches.max_size = -(-len(units) // max_batches)
    waiting = list(units)
    # A unit that was placed may bring the replica that another unit waits for.
    while unplaced := [unit for unit in waiting if not batches.add(unit)]:
        if len(unplaced) == len(waiting):
            break
        waiting = unplaced
    in_order = tuple(tuple(move for unit in batch for move in unit) for batch in batches.units)
    return BatchedMoves(in_order, tuple(move for unit in unplaced for move in unit))


class _Batches:
    """Batches that are being filled.

    Each takes `usual_size` units, and up to `max_size` if no other has room.
    """

    usual_size = 1
    max_size = 1

    def __init__(
        self, upstreams: Upstreams, announced: AnnouncedInterruptions, max_batches: int
    ) -> None:
        self.units: list[list[Sequence[Move]]] = []
        self._effects: list[dict[str, Effect]] = []
        self._upstreams, self._announced, self._max_batches = upstreams, announced, max_batches

    def add(self, unit: Sequence[Move]) -> bool:
        """Put a unit into the first batch where it empties no upstream; False if there is no such
        batch."""
        own: dict[str, Effect] = {}
        for move in unit:
            for service, effect in effects([move], self._announced.get(move, ())).items():
                own[service] = own.get(service, Effect()) + effect
        roomy, full = self._by_room()
        room = len(self.units) < self._max_batches
        # A batch before all others helps a unit that must move before another one removes a
        # replica.
        new = [(len(self.units), True), (0, True)] if room else []
        places = [(i, False) for i in roomy] + new + [(i, False) for i in full]
        if _waits_for_end_of_run(unit):
            places = new[:1] + [(i, False) for i in reversed(range(len(self.units)))]
        for index, is_new in places:
            if self._fits(own, index, is_new):
                self._put(unit, own, index, is_new)
                return True
        return False

    def _by_room(self) -> tuple[list[int], list[int]]:
        """Indexes of batches below the usual size, and of those below the maximum size."""
        sizes = [len(batch) for batch in self.units]
        roomy = [index for index, size in enumerate(sizes) if size < self.usual_size]
        full = [
            index for index, size in enumerate(sizes) if self.usual_size <= size < self.max_size
        ]
        return roomy, sorted(full, key=lambda index: sizes[index])

    def _fits(self, own: Mapping[str, Effect], index: int, is_new: bool) -> bool:
        """Whether no upstream becomes empty, in this batch or in a later one."""
        for service in own:
            if service not in self._upstreams.members:
                continue
            steps = [batch.get(service, Effect()) for batch in self._effects]
            if is_new:
                steps.insert(index, Effect())
            steps[index] += own[service]
            if emptied(self._upstreams.serving[service], steps):
                return False
        return True

    def _put(
        self, unit: Sequence[Move], own: Mapping[str, Effect], index: int, is_new: bool
    ) -> None:
        if is_new:
            self.units.insert(index, [])
            self._effects.insert(index, {})
        self.units[index].append(unit)
        batch = self._effects[index]
        for service, effect in own.items():
            batch[service] = batch.get(service, Effect()) + effect
