"""What goes on after failures, and which drains are taken back."""

from dataclasses import replace

import pytest

from roles.rolling import (
    Failure,
    HostRestart,
    HostStep,
    Progress,
    Removal,
    Restart,
    decide,
    plan_rolling,
    undrained,
)
from tests.unit.rolling.fleet import member, members

CHAT = members("a/q0", "b/q0", "c/q0")
CODE = members("a/q1", "b/q1", "c/q1", service="code")
PLAN = plan_rolling(
    [*CHAT, *CODE],
    [Restart(one.id) for one in (*CHAT, *CODE)],
    max_batches=10,
    balanced={"chat", "code"},
)
A_MOVED = Progress(moved=frozenset({"a/q0", "a/q1"}))


def going(progress: Progress, index: int = 1) -> list[str]:
    return [replica for move in decide(PLAN, index, progress).moves for replica in move.replicas]


def reasons(progress: Progress, index: int = 1) -> dict[str, str]:
    left = decide(PLAN, index, progress).skipped
    return {replica: one.reason for one in left for replica in one.move.replicas}


def failed(host: str, *replicas: str) -> Failure:
    return Failure(host, frozenset(replicas))


@pytest.mark.parametrize(
    ("progress", "goes"),
    [
        pytest.param(A_MOVED, ["b/q0", "b/q1"], id="all is well"),
        pytest.param(
            Progress(failures=(failed("a", "a/q0"),), moved=frozenset({"a/q1"})),
            ["b/q1"],
            id="chat failed on a: code goes on",
        ),
        pytest.param(Progress(failures=(failed("a"),)), [], id="a failed as a whole: both stop"),
        pytest.param(
            Progress(failures=(failed("a", "a/q0"),), restored=frozenset({"a/q0"})),
            ["b/q1"],
            id="old replicas that are back stop their service as well",
        ),
        pytest.param(replace(A_MOVED, failures=(failed("b", "b/q0"),)), [], id="b itself failed"),
        pytest.param(
            replace(A_MOVED, failures=(failed("x"),)), ["b/q0", "b/q1"], id="a stranger failed"
        ),
        pytest.param(
            replace(A_MOVED, failed_before=frozenset("a")), ["b/q0", "b/q1"], id="failed earlier"
        ),
        pytest.param(replace(A_MOVED, failed_before=frozenset("b")), [], id="b failed earlier"),
        pytest.param(
            replace(A_MOVED, failed_balancers=frozenset({"lb"})), [], id="a balancer failed"
        ),
    ],
)
def test_who_goes_on(progress, goes):
    assert going(progress) == goes
    assert set(reasons(progress)) == {"b/q0", "b/q1"} - set(goes)


@pytest.mark.parametrize(
    ("progress", "replica", "names"),
    [
        (Progress(failures=(failed("a", "a/q0"),)), "b/q0", ["chat", "a failed"]),
        (Progress(failed_balancers=frozenset({"lb"})), "b/q1", ["balancer lb"]),
        (Progress(failed_before=frozenset("b")), "b/q1", ["b failed earlier"]),
    ],
)
def test_who_is_left_is_told_who_failed(progress, replica, names):
    assert all(name in reasons(progress)[replica] for name in names)


def test_a_service_without_balancer_goes_on_when_a_balancer_failed():
    plan = plan_rolling(CHAT, [Restart("a/q0")], max_batches=10, balanced=())
    decision = decide(plan, 0, Progress(failed_balancers=frozenset({"lb"})))
    assert [move.replicas for move in decision.moves] == [("a/q0",)]
    assert decision.drained == ()


def test_a_replica_whose_successor_did_not_come_waits():
    """The update of code stopped, so the replica of chat that moves with it did not come."""
    own = [
        member("a/q0", "code"),
        member("b/q0", serves=False),
        member("b/q1", "code"),
        member("c/q0"),
    ]
    plan = plan_rolling(
        own,
        [Restart("a/q0"), HostRestart("b"), Restart("c/q0")],
        max_batches=10,
        balanced={"chat", "code"},
    )
    progress = Progress(failures=(failed("a", "a/q0"),))
    assert [len(batch.moves) for batch in plan.batches] == [1, 1, 1]
    assert decide(plan, 1, progress).moves == ()
    [left] = decide(plan, 2, progress).skipped
    assert left.move.replicas == ("c/q0",)
    assert "no other replica of chat" in left.reason


def test_who_moves_with_a_lost_replica_stops_its_service_too():
    own = [*members("a+b/q0", "x/q0"), *members("b/q1", "c/q1", service="code")]
    plan = plan_rolling(
        own,
        [HostRestart("a"), HostRestart("b"), Restart("c/q1")],
        max_batches=10,
        balanced={"chat", "code"},
    )
    progress = Progress(failures=(failed("a"),))
    # b restarts with a, so nobody knows whether its replica of code is back.
    assert decide(plan, 1, progress).moves == ()
    moved = replace(progress, moved=frozenset({"b/q1"}))
    assert [move.replicas for move in decide(plan, 1, moved).moves] == [("c/q1",)]


def test_a_slot_beyond_the_plan_does_nothing():
    decision = decide(PLAN, 7, Progress())
    assert (decision.moves, decision.skipped, decision.step_of("a")) == ((), (), None)


def test_the_turn_of_a_host():
    own = [*members("a+b/q0", "c+d/q0"), member("a/q1", "code"), member("d/q1", "code")]
    plan = plan_rolling(own, [HostRestart("a"), Removal("a/q1")], max_batches=10, balanced={"chat"})
    decision = decide(plan, 0, Progress())
    assert decision.step_of("a") == HostStep(("a+b/q0",), ("a/q1",), host_restarts=True)
    assert decision.step_of("b") == HostStep(("a+b/q0",), (), host_restarts=False)
    assert decision.step_of("c") is None
    assert decision.drained == ("a+b/q0",)
    assert decide(plan, 0, Progress(failed_before=frozenset("b"))).skipped_on("a")


DRAINED = ["a/q0", "a/q1"]


@pytest.mark.parametrize(
    ("progress", "back"),
    [
        pytest.param(A_MOVED, ["a/q0", "a/q1"], id="both moved"),
        pytest.param(
            Progress(failures=(failed("a", "a/q0"),), moved=frozenset({"a/q1"})),
            ["a/q1"],
            id="one is lost",
        ),
        pytest.param(
            Progress(
                failures=(failed("a", "a/q0"),),
                moved=frozenset({"a/q1"}),
                restored=frozenset({"a/q0"}),
            ),
            ["a/q0", "a/q1"],
            id="the old one is back",
        ),
        pytest.param(Progress(failures=(failed("a"),)), [], id="the host is gone"),
        pytest.param(Progress(), [], id="nobody knows"),
    ],
)
def test_drains_are_taken_back_of_who_serves(progress, back):
    decision = decide(PLAN, 0, Progress())
    assert list(undrained(PLAN, DRAINED, decision, progress)) == back


def test_a_batch_that_was_drained_and_then_left_is_taken_back():
    progress = Progress(failed_balancers=frozenset({"lb"}))
    second = decide(PLAN, 0, progress)
    assert undrained(PLAN, DRAINED, second, progress) == tuple(DRAINED)


def test_a_host_lost_between_drain_and_turn_stays_drained():
    progress = Progress(failures=(failed("a"),))
    second = decide(PLAN, 0, progress)
    assert second.moves == ()
    assert undrained(PLAN, DRAINED, second, progress) == ()


def test_replicas_that_moved_together_wait_for_the_end_of_the_run():
    changes = [Restart(id, together="one key") for id in ("a/q0", "b/q0")]
    plan = plan_rolling(CHAT, changes, max_batches=10, balanced={"chat"})
    [batch] = plan.batches
    decision = decide(plan, 0, Progress())
    moved = Progress(moved=frozenset({"a/q0"}), restored=frozenset({"b/q0"}))
    assert batch.drained == ("a/q0", "b/q0")
    assert undrained(plan, batch.drained, decision, moved) == ("b/q0",)


def test_a_replica_taken_down_stays_drained():
    plan = plan_rolling(CHAT, [Removal("a/q0")], max_batches=10, balanced={"chat"})
    progress = Progress(moved=frozenset({"a/q0"}))
    assert undrained(plan, DRAINED, decide(plan, 0, Progress()), progress) == ()
