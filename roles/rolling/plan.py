"""The plan of a rolling update: which replicas and hosts restart, in which batches."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from roles.rolling.batches import BatchedMoves, fill_batches, units
from roles.rolling.members import Change, Member
from roles.rolling.moves import Move, moves, removed
from roles.rolling.upstreams import Upstreams, effects, upstreams

# With one batch every upstream would become empty.
MIN_BATCHES = 2


@dataclass(frozen=True)
class Batch:
    """Moves that are made together; `drained` replicas get no requests during them."""

    moves: tuple[Move, ...]
    drained: tuple[str, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(host for move in self.moves for host in move.hosts))


@dataclass(frozen=True)
class Interruption:
    """A service whose upstream is empty during a move, and why."""

    service: str
    move: Move
    reason: str

    def __str__(self) -> str:
        return f"{self.service} is interrupted while {self.move} restarts: {self.reason}"


@dataclass(frozen=True)
class Skipped:
    """A move that a run does not make, and why; `failed_hosts` are those whose failure it is."""

    move: Move
    reason: str
    failed_hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.move} is left as it is: {self.reason}"


@dataclass(frozen=True)
class RollingPlan:
    """A rolling update: its batches in order, what it skips, and which services it interrupts.

    `members` are those of all upstreams when the plan was made; `balanced` are the services behind
    a balancer.
    """

    batches: tuple[Batch, ...]
    skipped: tuple[Skipped, ...]
    interruptions: tuple[Interruption, ...]
    members: tuple[Member, ...]
    balanced: frozenset[str]

    @property
    def removals(self) -> frozenset[str]:
        """The replicas that this update removes."""
        return frozenset(
            member.id for batch in self.batches for move in batch.moves for member in move.removals
        )

    @property
    def waiting(self) -> frozenset[str]:
        """The replicas that get requests again only at the end of the run: they moved together, and
        balancers need the configuration that is written there."""
        return frozenset(
            replica
            for batch in self.batches
            for move in batch.moves
            if move.together
            for replica in move.replicas
        )

    @property
    def kept_services(self) -> frozenset[str]:
        """The services that keep a replica after the whole update."""
        moves = [move for batch in self.batches for move in batch.moves]
        moves += [one.move for one in self.skipped]
        removed = {member.id for move in moves for member in move.removals}
        return frozenset(member.service for member in self.members if member.id not in removed)

    def interrupted_by(self, move: Move) -> frozenset[str]:
        """The services for which the plan announces an interruption by this move."""
        return frozenset(one.service for one in self.interruptions if one.move == move)


def plan_rolling(
    members: Sequence[Member],
    changes: Sequence[Change],
    *,
    max_batches: int,
    balanced: Collection[str],
    failed_hosts: Collection[str] = (),
    absent_hosts: Collection[str] = (),
    undrainable: Mapping[str, str] | None = None,
    untouched: Mapping[str, str] | None = None,
    forbid_interruption: Collection[str] = (),
) -> RollingPlan:
    """Plan a rolling update; members and changes are in the inventory's order.

    `max_batches` is at least 2. `failed_hosts` failed earlier in this run, `absent_hosts` are not
    in it: a replica over several hosts moves with all of them. `undrainable` maps a service to why
    its replicas cannot be drained in this run, and what to do. `untouched` maps a service to why
    none of its replicas that serve is stopped. Services of
    `forbid_interruption` are never left without a replica. Raises ValueError where changes name
    unknown replicas or contradict each other.
    """
    skipped: list[Skipped] = []
    feasible: list[Move] = []
    for move in moves(members, changes):
        reason = _blocker(move, frozenset(failed_hosts), undrainable or {}, untouched or {})
        reason = reason or _absent(move, frozenset(absent_hosts))
        if reason:
            skipped.append(Skipped(move, reason))
        else:
            feasible.append(move)
    leaving = removed(changes)
    feasible, refused = _allowed(feasible, members, leaving, forbid_interruption)
    found = upstreams(members, leaving, feasible)
    announced = {move: found.necessarily_emptied([move]) for move in feasible}
    placed, refused_later = _placed(feasible, found, announced, max_batches, forbid_interruption)
    unplaced = [Skipped(move, _NO_BATCH) for move in placed.unplaced]
    return RollingPlan(
        batches=tuple(_batch(own, balanced) for own in placed.batches),
        skipped=tuple(skipped + refused + refused_later + unplaced),
        interruptions=_interruptions(placed, announced, found),
        members=tuple(members),
        balanced=frozenset(balanced),
    )


_NO_BATCH = "no batch is left in which it empties no upstream: run again"


def _blocker(
    move: Move,
    failed: frozenset[str],
    undrainable: Mapping[str, str],
    untouched: Mapping[str, str],
) -> str:
    """Why a move cannot be made in this run, "" if it can."""
    hosts = [host for host in move.hosts if host in failed]
    if hosts:
        return f"{', '.join(hosts)} failed earlier in this run: see there, run again"
    for member in move.members:
        if member.serves and member.service in untouched:
            return untouched[member.service]
        if member.gets_requests and member.service in undrainable:
            return f"{member.id} cannot be drained: {undrainable[member.service]}"
    return ""


def _absent(move: Move, absent: frozenset[str]) -> str:
    """Why a move of several hosts cannot be made without those that are not in the run."""
    hosts = [host for host in move.hosts if host in absent]
    if not hosts or len(move.hosts) == 1:
        return ""
    limits = " ".join(f"--limit {host}" for host in hosts)
    return f"not all of its hosts are in this run: add {limits}"


def _allowed(
    feasible: list[Move],
    members: Sequence[Member],
    leaving: Collection[str],
    forbidden: Collection[str],
) -> tuple[list[Move], list[Skipped]]:
    """The moves that interrupt no forbidden service, and the refused ones."""
    refused: list[Skipped] = []
    while True:
        # A refused move brings no replica, so another move may become impossible.
        found = upstreams(members, leaving, feasible)
        now = [
            _refusal(move, services, found)
            for move in feasible
            if (services := _among(found.necessarily_emptied([move]), forbidden))
        ]
        if not now:
            return feasible, refused
        refused += now
        refused_moves = {one.move for one in now}
        feasible = [move for move in feasible if move not in refused_moves]


def _among(services: Iterable[str], forbidden: Collection[str]) -> list[str]:
    return [service for service in services if service in forbidden]


def _refusal(move: Move, services: Sequence[str], found: Upstreams) -> Skipped:
    reasons = "; ".join(f"{name}: {found.why_emptied(name, move)}" for name in services)
    return Skipped(
        move,
        f"it would interrupt {', '.join(services)}, which the inventory forbids ({reasons}). "
        "Let another replica of it serve on another host, or allow the interruption, and run again",
    )


def _placed(
    feasible: list[Move],
    found: Upstreams,
    announced: dict[Move, tuple[str, ...]],
    max_batches: int,
    forbidden: Collection[str],
) -> tuple[BatchedMoves, list[Skipped]]:
    """The moves in batches, and the refused ones; adds to `announced` if no move fits otherwise.

    Moves can wait for each other in a circle. The first one that may interrupt a service breaks it.
    """
    most = max(MIN_BATCHES, max_batches)
    refused: list[Skipped] = []
    while True:
        placed = fill_batches(units(feasible, found, announced), found, announced, most)
        if placed.batches or not placed.unplaced:
            return placed, refused
        move = placed.unplaced[0]
        services = [
            service
            for service, effect in effects([move]).items()
            if service in found.members and 0 < found.serving[service] <= effect.taken
        ]
        if not _among(services, forbidden):
            announced[move] = tuple(dict.fromkeys((*announced[move], *services)))
            continue
        refused.append(_refusal(move, _among(services, forbidden), found))
        feasible = [other for other in feasible if other != move]


def _batch(own: tuple[Move, ...], balanced: Collection[str]) -> Batch:
    members = [member for move in own for member in move.members]
    return Batch(own, tuple(member.id for member in members if member.service in balanced))


def _interruptions(
    placed: BatchedMoves, announced: Mapping[Move, tuple[str, ...]], found: Upstreams
) -> tuple[Interruption, ...]:
    return tuple(
        Interruption(service, move, found.why_emptied(service, move))
        for batch in placed.batches
        for move in batch
        for service in announced[move]
    )


def batch_slots(members: Sequence[Member], max_batches: int) -> int:
    """The number of batches that a run prepares barriers for, before it knows what must restart.

    Pass this number to plan_rolling as `max_batches`, too. Fewer would not let replicas
    of one host restart one after the other; more would only cost operations.
    """
    hosts: dict[str, dict[str, int]] = {}
    homes: dict[str, set[str]] = {}
    for member in members:
        own = hosts.setdefault(member.hosts[0], {})
        own[member.service] = own.get(member.service, 0) + 1
        homes.setdefault(member.service, set()).update(member.hosts)
    steps = sum(
        max(count if len(homes[service]) == 1 else 1 for service, count in own.items())
        for own in hosts.values()
    )
    return max(MIN_BATCHES, min(max_batches, steps))
