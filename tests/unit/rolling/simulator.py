"""Executes rolling updates on a fleet in memory, and watches its upstreams at each moment."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from roles.rolling import (
    ROLLING_UPDATE,
    Change,
    Decision,
    Failure,
    HostRestart,
    Member,
    Move,
    Progress,
    Removal,
    Restart,
    RollingPlan,
    decide,
    plan_rolling,
    undrained,
)

# A replica's id, and who has it out.
Drain = tuple[str, str]


@dataclass
class World:
    """A fleet as it really is: who serves, who is drained, and what is still to be changed."""

    members: list[Member]
    changes: list[Change]
    max_batches: int = 10
    forbidden: frozenset[str] = frozenset()
    drains: set[Drain] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.drains = {(member.id, owner) for member in self.members for owner in member.drained_by}
        self.serves = {member.id: member.serves for member in self.members}

    def facts(self) -> list[Member]:
        return [
            replace(one, serves=self.serves[one.id], drained_by=self._owners(one.id))
            for one in self.members
        ]

    def _owners(self, id: str) -> frozenset[str]:
        return frozenset(owner for replica, owner in self.drains if replica == id)

    def receiving(self, service: str) -> set[str]:
        return {one.id for one in self.facts() if one.service == service and one.gets_requests}

    def plan(self) -> RollingPlan:
        services = {one.service for one in self.members}
        return plan_rolling(
            self.facts(),
            self.changes,
            max_batches=self.max_batches,
            balanced=services,
            forbid_interruption=self.forbidden,
        )

    def kept_services(self) -> set[str]:
        removed = {change.replica for change in self.changes if isinstance(change, Removal)}
        return {one.service for one in self.members if one.id not in removed}

    def undrain(self, ids: Iterable[str]) -> None:
        self.drains -= {(id, ROLLING_UPDATE) for id in ids}

    def end(self) -> None:
        """A run's last stage gives balancers all keys, and undrains whoever gives a completion."""
        self.undrain([id for id in self.serves if self.serves[id]])
        self.waiting.clear()

    def done(self, move: Move) -> None:
        """The move's replicas serve from the new files or are gone, its hosts have restarted."""
        for one in move.restarts:
            self.serves[one.id] = True
            if move.together:
                self.waiting.add(one.id)
        gone = {one.id for one in move.removals}
        restarted = {one.id for one in move.restarts}
        self.members = [one for one in self.members if one.id not in gone]
        for id in gone:
            del self.serves[id]
        self.changes = [
            change
            for change in self.changes
            if not (isinstance(change, HostRestart) and change.host in move.restarted_hosts)
            and not (isinstance(change, Restart) and change.replica in restarted)
            and not (isinstance(change, Removal) and change.replica in gone)
        ]


@dataclass
class Step:
    """What happened in one batch."""

    decision: Decision
    before: Progress
    after: Progress


def execute(
    world: World, chance: random.Random | None = None, failure_rate: float = 0.0
) -> tuple[RollingPlan, list[Step]]:
    """One run: plan, and all its batches, with failures as chance has them."""
    chance = chance or random.Random(0)
    plan = world.plan()
    kept = world.kept_services()
    progress = Progress()
    steps = []
    for index in range(len(plan.batches)):
        before = progress
        decision = decide(plan, index, progress)
        _drain(world, plan, decision, kept)
        for move in decision.moves:
            progress = _turn(world, move, progress, chance, failure_rate)
        back = undrained(plan, decision.drained, decision, progress)
        # Nobody is sent requests who does not serve, or only to another key.
        assert all(world.serves[id] for id in back)
        assert not world.waiting & set(back)
        world.undrain(back)
        steps.append(Step(decision, before, progress))
    world.end()
    return plan, steps


def _drain(world: World, plan: RollingPlan, decision: Decision, kept: set[str]) -> None:
    """Drain a batch: it empties no upstream but where the plan announced it."""
    announced = {service for move in decision.moves for service in plan.interrupted_by(move)}
    before = {service: world.receiving(service) for service in kept}
    world.drains |= {(id, ROLLING_UPDATE) for id in decision.drained}
    for service in kept - announced:
        assert world.receiving(service) or not before[service], f"{service} is emptied"
    # Whatever moves gets no requests, and nobody else is out for it.
    moving = {id for move in decision.moves for id in move.replicas}
    assert moving == set(decision.drained)


def _turn(
    world: World, move: Move, progress: Progress, chance: random.Random, failure_rate: float
) -> Progress:
    if chance.random() >= failure_rate:
        world.done(move)
        return replace(progress, moved=progress.moved | set(move.replicas))
    hosts = set(chance.sample(move.hosts, chance.randint(1, len(move.hosts))))
    named = frozenset() if chance.random() < 0.3 else frozenset(move.replicas)
    failures = tuple(Failure(host, named) for host in move.hosts if host in hosts)
    failed = replace(progress, failures=(*progress.failures, *failures))
    if named and chance.random() < 0.5:
        # The old replicas are back, as far as there were any.
        old = {id for id in named if world.serves[id]}
        return replace(failed, restored=failed.restored | old)
    world.serves.update(dict.fromkeys(move.replicas, False))
    return failed
