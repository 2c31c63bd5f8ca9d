"""Whatever a fleet looks like and whatever fails, these hold at each moment of an update."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from roles.rolling import (
    ROLLING_UPDATE,
    Change,
    HostRestart,
    Member,
    Move,
    Removal,
    Restart,
    plan_rolling,
)
from tests.unit.rolling.simulator import World, execute

HOSTS = [f"h{i}" for i in range(7)]
SERVICES = ["chat", "code", "embed"]


@st.composite
def fleet_members(draw: st.DrawFn) -> list[Member]:
    hosts = HOSTS[: draw(st.integers(1, len(HOSTS)))]
    found = []
    for host in hosts:
        for n in range(draw(st.integers(0, 3))):
            also = draw(st.sampled_from(hosts)) if draw(st.integers(0, 5)) == 0 else host
            found.append(
                Member(
                    id=f"{host}/q{n}",
                    service=draw(st.sampled_from(SERVICES)),
                    hosts=tuple(dict.fromkeys((host, also))),
                    serves=draw(st.integers(0, 4)) > 0,
                    drained_by=draw(
                        st.sampled_from([frozenset()] * 6 + [{"operator"}, {ROLLING_UPDATE}]).map(
                            frozenset
                        )
                    ),
                )
            )
    return found


def _changes(draw: st.DrawFn, members: list[Member]) -> list[Change]:
    kinds = {one.id: draw(st.sampled_from(["restart", "restart", "", "remove"])) for one in members}
    removed = [one for one in members if kinds[one.id] == "remove"]
    one_key = draw(st.sampled_from([*SERVICES, "", ""]))
    changes: list[Change] = [Removal(one.id) for one in removed]
    for one in members:
        if kinds[one.id] == "restart":
            near = [old.id for old in removed if set(old.hosts) & set(one.hosts)]
            replaces = near[:1] if not one.serves else []
            together = "one key" if one.service == one_key else ""
            changes.append(Restart(one.id, tuple(replaces), together))
    some_hosts = st.lists(st.sampled_from(HOSTS), max_size=4, unique=True)
    hosts = draw(st.sampled_from([some_hosts, st.just([]), st.just(HOSTS)]).flatmap(lambda s: s))
    return changes + [HostRestart(host) for host in hosts]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    members = draw(fleet_members())
    return World(
        members=members,
        changes=_changes(draw, members),
        max_batches=draw(st.sampled_from([1, 2, 3, 10])),
        forbidden=frozenset(draw(st.sets(st.sampled_from(SERVICES), max_size=1))),
    )


chances = st.integers(0, 2**32).map(random.Random)
# The simulator asserts at each drain that no upstream is emptied but where that is announced.


@given(worlds(), chances, st.sampled_from([0.0, 0.2, 0.6]))
def test_no_upstream_is_emptied_unannounced_whatever_fails(world, chance, failure_rate):
    for _run in range(3):
        execute(world, chance, failure_rate)


@given(worlds())
def test_every_change_is_in_one_batch_or_skipped(world):
    plan = world.plan()
    moves = [move for batch in plan.batches for move in batch.moves]
    moves += [one.move for one in plan.skipped]
    restarts = Counter(one.id for move in moves for one in move.restarts)
    removals = Counter(one.id for move in moves for one in move.removals)
    hosts = Counter(host for move in moves for host in move.restarted_hosts)
    assert max((restarts | removals | hosts).values(), default=1) == 1
    assert {c.replica for c in world.changes if isinstance(c, Removal)} == set(removals)
    assert {c.host for c in world.changes if isinstance(c, HostRestart)} == set(hosts)
    carried = {one.id for one in world.members if set(one.hosts) & set(hosts)} - set(removals)
    assert {c.replica for c in world.changes if isinstance(c, Restart)} | carried == set(restarts)


@given(worlds())
def test_batches_are_few_and_small(world):
    plan = world.plan()
    most = max(2, world.max_batches)
    moves = [move for batch in plan.batches for move in batch.moves]
    moves += [one.move for one in plan.skipped]
    assert len(plan.batches) <= most
    for batch in plan.batches:
        assert len({move.hosts[0] for move in batch.moves}) <= -(-len(moves) // most)


@given(worlds())
def test_a_replica_and_all_its_hosts_restart_in_one_batch(world):
    plan = world.plan()
    batch_of: dict[str, set[int]] = {}
    for index, batch in enumerate(plan.batches):
        for move in batch.moves:
            for host in move.restarted_hosts:
                batch_of.setdefault(host, set()).add(index)
            for one in move.members:
                batch_of.setdefault(one.id, set()).add(index)
                assert set(one.hosts) <= set(move.hosts)
    for one in world.members:
        indexes = [batch_of[host] for host in one.hosts if host in batch_of]
        # A host that restarts takes its replicas with it.
        assert all(found == batch_of[one.id] for found in indexes)


@given(worlds())
def test_who_restarts_together_is_in_one_move(world):
    plan = world.plan()
    one_key = {c.replica for c in world.changes if isinstance(c, Restart) and c.together}
    moves = [move for batch in plan.batches for move in batch.moves]
    moves += [one.move for one in plan.skipped]
    assert sum(bool(one_key & set(move.replicas)) for move in moves) == bool(one_key)


@given(worlds())
def test_a_forbidden_interruption_is_never_planned(world):
    plan = world.plan()
    assert not {one.service for one in plan.interruptions} & world.forbidden


def _services(move: Move) -> set[str]:
    return set(move.services)


@given(worlds(), chances)
def test_a_service_stops_at_its_first_failure_and_others_go_on(world, chance):
    plan, steps = execute(world, chance, failure_rate=0.3)
    for step in steps:
        failures = step.before.failures
        hosts = {failure.host for failure in failures}
        stopped = {
            one.service
            for one in plan.members
            if any(failure.concerns(one) for failure in failures)
        }
        for move in step.decision.moves:
            assert not _services(move) & stopped
            assert not set(move.hosts) & hosts
        for left in step.decision.skipped:
            # Whoever is left has a failure to name: without any, all go.
            assert failures
            if not _services(left.move) & stopped and not set(left.move.hosts) & hosts:
                assert "no other replica" in left.reason or _tied(plan, step, left.move, stopped)


def _tied(plan, step, move, stopped) -> bool:
    """Whether a service of the move had a replica in a move that failed as a whole."""
    moves = [move for batch in plan.batches for move in batch.moves]
    return any(
        _services(other) & _services(move) and len(other.hosts) > 1 and _services(other) & stopped
        for other in moves
    )


@given(worlds())
def test_without_failures_all_batches_go_as_planned(world):
    _plan, steps = execute(world)
    assert not [left for step in steps for left in step.decision.skipped]


@given(worlds(), chances)
def test_later_runs_do_what_is_left_and_end(world, chance):
    execute(world, chance, failure_rate=0.4)
    for _run in range(len(world.changes) + 1):
        left = len(world.changes)
        plan, _ = execute(world)
        if not plan.batches:
            break
        assert len(world.changes) < left
    assert not world.plan().batches
    if not world.forbidden:
        assert not world.changes
    # All drains of updates are taken back from whoever serves.
    out = {replica for replica, owner in world.drains if owner == ROLLING_UPDATE}
    assert not {id for id in out if world.serves.get(id)}


@given(worlds(), chances)
def test_who_must_not_restart_is_not_touched(world, chance):
    named = {c.replica for c in world.changes if not isinstance(c, HostRestart)}
    hosts = {c.host for c in world.changes if isinstance(c, HostRestart)}
    _plan, steps = execute(world, chance, failure_rate=0.2)
    for step in steps:
        for move in step.decision.moves:
            for one in move.members:
                assert one.id in named or set(one.hosts) & hosts


@given(worlds(), chances)
def test_the_order_of_changes_is_no_matter(world, chance):
    with_replicas = {host for one in world.members for host in one.hosts}
    changes = [
        c for c in world.changes if not isinstance(c, HostRestart) or c.host in with_replicas
    ]
    shuffled = changes.copy()
    chance.shuffle(shuffled)
    one, other = (
        plan_rolling(world.facts(), own, max_batches=world.max_batches, balanced=SERVICES)
        for own in (changes, shuffled)
    )
    assert one == other


@given(fleet_members())
def test_nothing_changed_plans_nothing(members):
    plan = plan_rolling(members, [], max_batches=10, balanced=SERVICES)
    assert (plan.batches, plan.skipped, plan.interruptions) == ((), (), ())
