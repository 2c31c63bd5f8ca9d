"""The effect of moves on the upstreams of services: who gets requests during and after them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from roles.rolling.members import Member
from roles.rolling.moves import Move


@dataclass(frozen=True)
class Effect:
    """What moves of one step do to one upstream, in replicas.

    `taken` replicas get requests before the step but not during it; `gone` of these do not return
    in this update. `gained` replicas get requests only after it.
    """

    taken: int = 0
    gone: int = 0
    gained: int = 0

    def __add__(self, other: "Effect") -> "Effect":
        return Effect(self.taken + other.taken, self.gone + other.gone, self.gained + other.gained)


def effects(moves: Iterable[Move], announced: Collection[str] = ()) -> dict[str, Effect]:
    """The moves' effect on each service; nothing is taken from a service with an announced
    interruption."""
    found: dict[str, Effect] = {}
    for move in moves:
        for member in move.members:
            leaves = member in move.removals or bool(move.together)
            effect = _effect(member, leaves, member.service not in announced)
            found[member.service] = found.get(member.service, Effect()) + effect
    return found


def _effect(member: Member, leaves: bool, counts: bool) -> Effect:
    if member.gets_requests:
        return Effect(taken=int(counts), gone=int(leaves))
    return Effect(gained=int(member.will_get_requests and not leaves))


def emptied(serving: int, steps: Iterable[Effect]) -> bool:
    """Whether any of these steps, made in order, leaves an upstream without a replica."""
    for step in steps:
        if step.taken and step.taken >= serving:
            return True
        serving += step.gained - step.gone
    return False


@dataclass(frozen=True)
class Upstreams:
    """The upstreams before an update, and what the whole update does to them.

    `members` by service, only for services that keep a replica: the others need no care.
    """

    members: Mapping[str, tuple[Member, ...]]
    serving: Mapping[str, int]
    total: Mapping[str, Effect]

    def necessarily_emptied(self, moves: Sequence[Move]) -> tuple[str, ...]:
        """Services that these moves empty in one step, in whatever order the other moves are
        made."""
        return tuple(
            service
            for service, effect in effects(moves).items()
            if service in self.members and effect.taken and not self._others(service, effect)
        )

    def _others(self, service: str, own: Effect) -> int:
        """How many replicas can get requests, at best, during one step."""
        total = self.total.get(service, Effect())
        return self.serving[service] - own.taken + total.gained - own.gained

    def why_emptied(self, service: str, move: Move) -> str:
        """Why no replica of a service gets requests during a move."""
        others = [one for one in self.members[service] if one.id not in move.replicas]
        if len(self.members[service]) == 1:
            return "it has one replica"
        if not others and move.restarted_hosts:
            return f"all its replicas restart with {', '.join(move.restarted_hosts)}"
        if not others:
            return "; ".join(move.together) or "all its replicas must move together"
        return "no other gets requests: " + ", ".join(_state(other) for other in others)


def _state(member: Member) -> str:
    if member.drained_by:
        return f"{member.id} is drained by {', '.join(sorted(member.drained_by))}"
    return f"{member.id} {'has to move, too' if member.serves else 'does not serve'}"


def upstreams(
    members: Sequence[Member], leaving: Collection[str], moves: Iterable[Move]
) -> Upstreams:
    """The upstreams of the members under an update of these moves; `leaving` are removed."""
    by_service: dict[str, list[Member]] = {}
    for member in members:
        by_service.setdefault(member.service, []).append(member)
    kept = {
        service: tuple(own)
        for service, own in by_service.items()
        if any(member.id not in leaving for member in own)
    }
    serving = {name: sum(one.gets_requests for one in own) for name, own in kept.items()}
    return Upstreams(kept, serving, effects(moves))
