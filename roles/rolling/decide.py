"""Decides which moves of a batch continue, from what has happened since the update began."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from roles.rolling.members import Member
from roles.rolling.moves import Move
from roles.rolling.plan import RollingPlan, Skipped


@dataclass(frozen=True)
class Failure:
    """A host that failed since the update began.

    `replicas` are those that the failure concerns; empty means all replicas of the host. A replica
    that leaves the host serves without it.
    """

    host: str
    replicas: frozenset[str] = frozenset()

    def concerns(self, member: Member) -> bool:
        if self.host in member.leaves:
            return False
        return member.id in self.replicas if self.replicas else self.host in member.hosts


@dataclass(frozen=True)
class Progress:
    """What has happened in an update so far.

    `failed_before` are hosts that failed before it began; `failed_balancers` failed at any time.
    `moved` replicas serve or are removed, as planned. `restored` replicas failed and serve again as
    before. `undrainable` replicas still get requests: a balancer has no other server for their
    upstream.
    """

    failed_before: frozenset[str] = frozenset()
    failures: tuple[Failure, ...] = ()
    failed_balancers: frozenset[str] = frozenset()
    moved: frozenset[str] = frozenset()
    restored: frozenset[str] = frozenset()
    undrainable: frozenset[str] = frozenset()

    def lost(self, member: Member) -> bool:
        """Whether a failure concerns a replica that was not restored."""
        failed = any(failure.concerns(member) for failure in self.failures)
        return failed and member.id not in self.restored


@dataclass(frozen=True)
class HostStep:
    """What one host does in a batch; a replica that spans hosts is in the step of each of them."""

    restarts: tuple[str, ...]
    removals: tuple[str, ...]
    host_restarts: bool


@dataclass(frozen=True)
class Decision:
    """Which moves of a batch are made, and which are skipped and why; `drained` get no requests."""

    moves: tuple[Move, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    drained: tuple[str, ...] = ()

    def step_of(self, host: str) -> HostStep | None:
        """The step of a host, None if it does nothing."""
        own = [move for move in self.moves if host in move.hosts]
        if not own:
            return None
        return HostStep(
            restarts=_on(host, (member for move in own for member in move.restarts)),
            removals=_on(host, (member for move in own for member in move.removals)),
            host_restarts=any(host in move.restarted_hosts for move in own),
        )

    def skipped_on(self, host: str) -> tuple[Skipped, ...]:
        """The skipped moves of a host."""
        return tuple(one for one in self.skipped if host in one.move.hosts)


def _on(host: str, members: Iterable[Member]) -> tuple[str, ...]:
    return tuple(member.id for member in members if host in member.hosts)


def decide(plan: RollingPlan, index: int, progress: Progress) -> Decision:
    """Which moves of the plan's batch `index` continue; none if the plan has no such batch.

    Call this before the batch is drained and again after that, once for all hosts: the step of a
    host must not depend on the progress of the other hosts of its batch.
    """
    if index >= len(plan.batches):
        return Decision()
    batch = plan.batches[index]
    failed = _failed(plan, index, progress)
    serving = _serving(plan, progress, failed)
    accepted: list[Move] = []
    skipped: list[Skipped] = []
    for move in batch.moves:
        reason, hosts = _stop_reason(plan, move, progress, failed)
        reason = reason or _would_empty(plan, accepted, move, serving)
        if reason:
            skipped.append(Skipped(move, reason, hosts))
        else:
            accepted.append(move)
    moving = {replica for move in accepted for replica in move.replicas}
    drained = tuple(replica for replica in batch.drained if replica in moving)
    return Decision(tuple(accepted), tuple(skipped), drained)


# Hosts whose failure concerns a replica, by replica.
_Failed = dict[str, tuple[str, ...]]


def _failed(plan: RollingPlan, index: int, progress: Progress) -> _Failed:
    """The hosts whose failure concerns a replica, by replica: also through another replica of its
    move."""
    found: _Failed = {}
    past = [move for batch in plan.batches[:index] for move in batch.moves]
    for failure in progress.failures:
        concerned = {member.id for member in plan.members if failure.concerns(member)}
        for move in past:
            if concerned.intersection(move.replicas):
                concerned.update(set(move.replicas) - progress.moved)
        for replica in concerned:
            found[replica] = (*found.get(replica, ()), failure.host)
    return found


def _stop_reason(
    plan: RollingPlan, move: Move, progress: Progress, failures: _Failed
) -> tuple[str, tuple[str, ...]]:
    """Why a failure stops a move, "" if none does, and the hosts that failed."""
    if progress.failed_balancers and plan.balanced.intersection(move.services):
        hosts = tuple(sorted(progress.failed_balancers))
        reason = (
            f"balancer {', '.join(hosts)} failed, so it is unknown whether requests still arrive"
        )
        return reason, hosts
    if kept := progress.undrainable.intersection(move.replicas):
        named = ", ".join(sorted(kept))
        return f"balancers have nothing else to send the requests of {named} to", ()
    before = tuple(host for host in move.hosts if host in progress.failed_before)
    if before:
        return f"{', '.join(before)} failed earlier in this run", before
    failed = dict.fromkeys(one.host for one in progress.failures if one.host in move.hosts)
    if failed:
        return f"{', '.join(failed)} failed", tuple(failed)
    for service in move.services:
        own = [member.id for member in plan.members if member.service == service]
        if found := dict.fromkeys(host for id in own for host in failures.get(id, ())):
            return f"the update of {service} stopped when {', '.join(found)} failed", tuple(found)
    return "", ()


def _serving(plan: RollingPlan, progress: Progress, failed: _Failed) -> dict[str, set[str]]:
    """The replicas that get requests now, by service, without services that are removed
    entirely."""
    kept = plan.kept_services
    out = plan.removals | plan.waiting
    serving: dict[str, set[str]] = {}
    for member in plan.members:
        moved = member.id in progress.moved
        gets_requests = member.will_get_requests if moved else member.gets_requests
        removed = moved and member.id in out
        lost = member.id in failed and member.id not in progress.restored
        if member.service in kept and gets_requests and not removed and not lost:
            serving.setdefault(member.service, set()).add(member.id)
    return serving


def _would_empty(
    plan: RollingPlan, accepted: Collection[Move], move: Move, serving: dict[str, set[str]]
) -> str:
    """Why a move would empty an upstream, though the plan announces no interruption, or ""."""
    announced = {name for one in (*accepted, move) for name in plan.interrupted_by(one)}
    out = {replica for one in accepted for replica in one.replicas}
    for service in move.services:
        before = serving.get(service, set()) - out
        if before and before <= set(move.replicas) and service not in announced:
            return f"no other replica of {service} gets requests"
    return ""


def undrained(
    plan: RollingPlan, drained: Iterable[str], decision: Decision, progress: Progress
) -> tuple[str, ...]:
    """The drained replicas of a batch that get requests again after it.

    These are replicas that moved, were restored, or were skipped by the batch's second `decision`.
    Lost and removed replicas stay drained, and so do those that wait for the end of the run.
    """
    untouched = {replica for one in decision.skipped for replica in one.move.replicas}
    back = (progress.moved - plan.waiting - plan.removals) | untouched | progress.restored
    members = {member.id: member for member in plan.members}
    return tuple(
        id for id in drained if id in back and not (id in members and progress.lost(members[id]))
    )
