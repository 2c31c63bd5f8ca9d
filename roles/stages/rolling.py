"""The state of a rolling update: its plan, and what was decided and done so far."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pyinfra.api import State

from roles.balancer import BalancerState, drain_owners, in_service
from roles.declaration import BALANCERS, FleetSettings
from roles.fleet import Fleet
from roles.rolling import (
    Change,
    Decision,
    Failure,
    HostStep,
    Member,
    Progress,
    RollingPlan,
    Skipped,
    batch_slots,
    decide,
    moves,
    plan_rolling,
    undrained,
)
from roles.stages.members import Balanced, Found, members_of

Phase = Literal["drain", "turn"]


@dataclass(eq=False)
class Rolling:
    """One rolling update of a run: that of its engines, or that of reboots and drivers.

    All hosts share its plan and decisions; each is made once, on the first call. `fleet` returns
    the run's present fleet, `most` the largest number of batches. `found` returns what hosts run,
    `changes` what is to be done; both are called when the update is planned. `busy` are hosts on
    which another deploy is at work: nobody knows what serves there.
    """

    state: State
    fleet: Callable[[], Fleet]
    most: Callable[[FleetSettings], int]
    found: Callable[[], Mapping[str, Found]]
    changes: Callable[[Fleet, Mapping[str, Found]], list[Change]]
    busy: Collection[str] = ()
    moved: set[str] = field(default_factory=set)
    restored: set[str] = field(default_factory=set)
    failures: dict[str, frozenset[str]] = field(default_factory=dict)
    turns: dict[str, HostStep] = field(default_factory=dict)
    undrainable: set[str] = field(default_factory=set)
    _parts: set[tuple[str, str]] = field(default_factory=set)
    _put_back: set[str] = field(default_factory=set)
    _balanced: Balanced | None = None
    _plan: RollingPlan | None = None
    _slots: int | None = None
    _announced: bool = False
    _failed_before: frozenset[str] = frozenset()
    _decisions: dict[tuple[int, Phase], Decision] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        """The largest number of batches that the update can have."""
        if self._slots is None:
            fleet = self.fleet()
            self._slots = batch_slots(members_of(fleet, {}), self.most(fleet.settings))
        return self._slots

    def plan(self) -> RollingPlan:
        """The plan of the update, which the first call makes."""
        if self._plan is None:
            fleet, found = self.fleet(), self.found()
            self._failed_before = self._failed()
            changes = self.changes(fleet, found)
            members = members_of(fleet, found, self._balanced, self._failed_before)
            # A service that left the inventory is still in the upstreams.
            services = {member.service for member in members}
            known = {*found, *(host for member in members for host in member.hosts)}
            self._plan = plan_rolling(
                members,
                changes,
                max_batches=self.slots,
                balanced=services if fleet.with_role(BALANCERS) else (),
                failed_hosts=self._failed_before & known,
                absent_hosts=known - set(found),
                undrainable=self._undrainable(fleet, services),
                untouched=self._untouched(members),
                forbid_interruption=[
                    one.name for one in fleet.settings.services if not one.interruptible
                ],
            )
        return self._plan

    @property
    def batches(self) -> int:
        """How many batches the update has, once it is planned."""
        return len(self._plan.batches) if self._plan is not None else 0

    def has_changes(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.changes(self.fleet(), self.found()))

    def unchanged(self) -> list[str]:
        """The replicas that serve as planned and do not move.

        Replicas of a service that restarts as a whole are left out: balancers do not have its new
        key yet.
        """
        fleet, found = self.fleet(), self.found()
        members = members_of(fleet, found)
        going = moves(members, self.changes(fleet, found))
        moving = {id for move in going for id in move.replicas}
        waiting = {service for move in going if move.together for service in move.services}
        return [
            one.id
            for one in members
            if one.serves
            and one.hosts[0] in found
            and one.id not in moving
            and one.service not in waiting
        ]

    def balanced(self, state: BalancerState) -> None:
        """Record the state of a balancer; a replica is in service if all balancers serve it."""
        one = Balanced(in_service(state), drain_owners(state))
        self._balanced = one if self._balanced is None else self._balanced.with_another(one)

    def decision(self, index: int, phase: Phase) -> Decision:
        """Which moves of a batch go on; decided once for all hosts."""
        key = (index, phase)
        if key not in self._decisions:
            plan = self.plan()
            self._decisions[key] = decide(plan, index, self._progress())
        return self._decisions[key]

    def turn(self, index: int, name: str) -> HostStep | None:
        """What a host does in a batch; None where it does nothing."""
        found = self.decision(index, "turn").step_of(name)
        if found is not None:
            self.turns[name] = found
        return found

    def done(self, ids: Collection[str], name: str = "") -> None:
        """Record that replicas serve as planned, or are taken down as planned: wholly, or a host's
        parts of them; a replica serves without the hosts that it leaves."""
        self._parts |= {(id, name) for id in ids if name}
        members = self.plan().members if name else ()
        hosts = {one.id: set(one.hosts) - one.leaves for one in members}
        self.moved |= {
            id for id in ids if all((id, host) in self._parts for host in hosts.get(id, ()))
        }

    def put_back(self, name: str, failed: Collection[str]) -> None:
        """Record that a host's previous replicas serve again, because these failed to."""
        turn = _replicas(self.turns.get(name))
        # A part of a replica has the name of the replica.
        names = {id.partition("/")[2] for id in failed}
        own = frozenset(id for id in turn if id.partition("/")[2] in names)
        self.failures[name] = own or frozenset(failed)
        self._put_back.add(name)
        self.restored |= {
            member.id
            for member in self.plan().members
            if member.serves and member.id in turn and self._put_back.issuperset(member.hosts)
        }

    def undrained(self, index: int) -> list[str]:
        """The ids of replicas that get requests again after a batch."""
        decision = self.decision(index, "turn")
        return list(undrained(self.plan(), self.drained(index), decision, self._progress()))

    def announce(self) -> bool:
        """Whether the caller must announce the plan: true for the first call only."""
        first, self._announced = not self._announced, True
        return first

    def drained(self, index: int) -> list[str]:
        """The ids of replicas that get no requests in a batch."""
        return list(self.decision(index, "drain").drained)

    def interrupted(self, index: int) -> list[str]:
        """Services that a batch leaves without a replica: for a while, as the plan announces, or
        for good, as they left the inventory."""
        plan, moves = self.plan(), self.decision(index, "drain").moves
        left = {member.service for member in plan.members} - plan.kept_services
        return sorted(left.union(*(plan.interrupted_by(move) for move in moves)))

    def moves_on(self, name: str) -> list[str]:
        """The replicas that move with what a host does in its turn."""
        return [
            replica
            for batch in self.plan().batches
            for move in batch.moves
            if name in move.hosts
            for replica in move.replicas
        ]

    def left_in(self, index: int, name: str) -> str:
        """Why a host is left as it is in a batch, or ""."""
        return "; ".join(one.reason for one in self.decision(index, "turn").skipped_on(name))

    def skipped_on(self, name: str) -> tuple[str, ...]:
        """What a host was left with, in words."""
        return (*self.refused_on(name), *map(str, self._skipped_on(name)))

    def failed_hosts_behind(self, name: str) -> list[str]:
        """Other hosts whose failure left this one, or some of it, as it was."""
        hosts = {host for skipped in self._skipped_on(name) for host in skipped.failed_hosts}
        return sorted(hosts - {name})

    def _skipped_on(self, name: str) -> list[Skipped]:
        turns = [one for (_, phase), one in self._decisions.items() if phase == "turn"]
        return [skipped for decision in turns for skipped in decision.skipped_on(name)]

    def left_behind(self, name: str) -> bool:
        """Whether this update was made and left a host, or some of it, as it was."""
        return self._plan is not None and bool(self.skipped_on(name))

    def refused_on(self, name: str) -> tuple[str, ...]:
        """What of a host the plan does not move in this run, and what to do, in words."""
        return tuple(str(one) for one in self.plan().skipped if name in one.move.hosts)

    def _undrainable(self, fleet: Fleet, services: Collection[str]) -> dict[str, str]:
        """Why services cannot be drained: balancers that this run does not reach."""
        missing = balancers_missing(fleet, reached(self.state))
        return dict.fromkeys(services, missing) if missing else {}

    def _untouched(self, members: Collection[Member]) -> dict[str, str]:
        """Why replicas of services go on as they are: some of theirs are on a busy host."""
        return {
            member.service: f"another deploy is still at work on {name}, which runs "
            f"{member.service}, too: wait for it, then run again"
            for member in members
            for name in member.hosts
            if name in self.busy
        }

    def _failed(self) -> frozenset[str]:
        return frozenset(host.name for host in self.state.failed_hosts)

    def _progress(self) -> Progress:
        fleet, failed = self.fleet(), self._failed()
        balancers = frozenset(host.name for host in fleet.with_role(BALANCERS))
        failures = tuple(
            Failure(name, self.failures.get(name) or _replicas(self.turns.get(name)))
            for name in sorted(failed - self._failed_before - balancers)
        )
        return Progress(
            failed_before=self._failed_before - balancers,
            failures=failures,
            failed_balancers=failed & balancers,
            moved=frozenset(self.moved),
            restored=frozenset(self.restored),
            undrainable=frozenset(self.undrainable),
        )


def reached(state: State) -> set[str]:
    """Names of the hosts within the run's --limit, including those that failed."""
    limit = state.limit_hosts
    return {host.name for host in (state.inventory if limit is None else limit)}


def balancers_missing(fleet: Fleet, reached: Collection[str]) -> str:
    """Which --limit a run that reaches these hosts needs so that balancers can drain, or ""."""
    names = [host.name for host in fleet.with_role(BALANCERS) if host.name not in reached]
    missing = " ".join(f"--limit {name}" for name in names)
    return f"balancers are not in this run: add {missing}" if missing else ""


def _replicas(turn: HostStep | None) -> frozenset[str]:
    return frozenset((*turn.restarts, *turn.removals)) if turn else frozenset()
