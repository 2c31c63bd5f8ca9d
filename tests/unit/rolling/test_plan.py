"""The cases that an operator knows: who goes with whom, and what is announced or refused."""

import math
import time
from collections.abc import Sequence

import pytest

from roles.rolling import (
    Change,
    HostRestart,
    Member,
    Removal,
    Restart,
    RollingPlan,
    batch_slots,
    plan_rolling,
)
from tests.unit.rolling.fleet import member, members


def planned(own: Sequence[Member], changes: Sequence[Change], **options) -> RollingPlan:
    return plan_rolling(
        own, changes, **({"max_batches": 10, "balanced": {one.service for one in own}} | options)
    )


def moved(plan: RollingPlan) -> list[str]:
    """The batches as text: replicas that restart, "-" before those removed, "!" before hosts."""
    return [
        " ".join(
            name
            for move in batch.moves
            for name in (
                *(one.id for one in move.restarts),
                *(f"-{one.id}" for one in move.removals),
                *(f"!{host}" for host in move.restarted_hosts),
            )
        )
        for batch in plan.batches
    ]


def restarts(*own: Member) -> list[Restart]:
    return [Restart(one.id) for one in own]


PAIR = members("a/q0", "a/q1", "b/q0", "b/q1")
TWO_SERVICES = [
    member("a/q0", "chat"),
    member("a/q1", "code"),
    member("b/q0", "chat"),
    member("b/q1", "code"),
]
SPANNING = members("a+b/q0", "c+d/q0")


def test_replicas_of_an_untouched_service_stay_where_they_serve():
    """Nobody knows whether those on a host that another deploy changes serve."""
    own = [member("a/q0"), member("b/q0"), member("b/q1", serves=False), member("b/r0", "code")]
    plan = planned(own, restarts(*own[1:]), untouched={own[0].service: "wait"})
    assert moved(plan) == ["b/q1 b/r0"]
    assert [(one.move.replicas, one.reason) for one in plan.skipped] == [(("b/q0",), "wait")]


@pytest.mark.parametrize(
    ("own", "changes", "batches"),
    [
        pytest.param(PAIR, restarts(*PAIR), ["a/q0 a/q1", "b/q0 b/q1"], id="hosts take turns"),
        pytest.param(PAIR[:2], restarts(*PAIR[:2]), ["a/q0", "a/q1"], id="one host, two replicas"),
        pytest.param(PAIR, restarts(PAIR[1]), ["a/q1"], id="only who must"),
        pytest.param(
            [PAIR[0], PAIR[1], member("b/q0", drained="operator")],
            restarts(PAIR[0], PAIR[1], PAIR[2]),
            ["a/q0", "a/q1", "b/q0"],
            id="the other host is drained",
        ),
        pytest.param(
            [PAIR[0], member("b/q0", serves=False)],
            restarts(PAIR[0], PAIR[2]),
            ["b/q0", "a/q0"],
            id="who does not serve goes first where the only other one waits for it",
        ),
        pytest.param(
            TWO_SERVICES,
            restarts(*TWO_SERVICES),
            ["a/q0 a/q1", "b/q0 b/q1"],
            id="two services on the same hosts go together",
        ),
        pytest.param(
            TWO_SERVICES,
            restarts(TWO_SERVICES[0], TWO_SERVICES[2]),
            ["a/q0", "b/q0"],
            id="the other service is left alone",
        ),
        pytest.param(
            PAIR, [HostRestart("b")], ["b/q0 b/q1 !b"], id="a reboot takes all replicas of a host"
        ),
        pytest.param(
            PAIR,
            [HostRestart("a"), HostRestart("c"), HostRestart("b")],
            ["a/q0 a/q1 !a", "b/q0 b/q1 !b", "!c"],
            id="a host without replicas reboots last",
        ),
        pytest.param(
            SPANNING, restarts(*SPANNING), ["a+b/q0", "c+d/q0"], id="over hosts: moves as one"
        ),
        pytest.param(
            SPANNING,
            [HostRestart("a"), HostRestart("b")],
            ["a+b/q0 !a !b"],
            id="hosts of one replica reboot together",
        ),
        pytest.param(
            [*members("a/q0", "b/q0"), member("a/q1", serves=False)],
            [Restart("a/q1", replaces=("a/q0",)), Removal("a/q0")],
            ["a/q1 -a/q0"],
            id="a new replica on the GPUs of an old one",
        ),
        pytest.param(members("a/q0", "b/q0"), [Removal("a/q0")], ["-a/q0"], id="a host is retired"),
        pytest.param(
            members("a/q0", "b/q0"),
            [Removal("a/q0"), Restart("b/q0")],
            ["b/q0", "-a/q0"],
            id="the retired host serves until the others have moved",
        ),
        pytest.param(
            [member("a/q0"), member("a/q1", "code", serves=False), member("b/q0")],
            [Restart("a/q1", replaces=("a/q0",)), Restart("b/q0")],
            ["b/q0", "a/q1 -a/q0"],
            id="who stays moves before another service takes the GPUs of the other replica",
        ),
    ],
)
def test_batches(own, changes, batches):
    plan = planned(own, changes)
    assert moved(plan) == batches
    assert (plan.skipped, plan.interruptions) == ((), ())


def test_who_waits_for_the_end_of_the_run_moves_last():
    own = [*members("a/q0", "b/q0"), *members("c/q1", "d/q1", "e/q1", service="code")]
    one_key = [Restart(one.id, together="one key") for one in own[:2]]
    plan = planned(own, [*one_key, *restarts(*own[2:])])
    assert moved(plan) == ["c/q1", "d/q1", "e/q1", "a/q0 b/q0"]
    assert [(one.service, one.reason) for one in plan.interruptions] == [("chat", "one key")]


@pytest.mark.parametrize(
    ("hosts", "most", "sizes"),
    [
        (3, 10, [1, 1, 1]),
        (10, 10, [1] * 10),
        (11, 10, [2] * 5 + [1]),
        (25, 10, [3] * 8 + [1]),
        (4, 2, [2, 2]),
        # All at once would empty the upstream.
        (3, 1, [2, 1]),
    ],
)
def test_one_host_at_a_time_up_to_the_most_batches(hosts, most, sizes):
    own = [member(f"h{i:02}/q{n}") for i in range(hosts) for n in range(2)]
    plan = planned(own, restarts(*own), max_batches=most)
    assert [len(batch.hosts) for batch in plan.batches] == sizes
    together = [host for batch in plan.batches for host in batch.hosts]
    assert together == sorted(together)


def test_a_batch_is_smaller_where_it_would_empty_an_upstream():
    # Pairs of hosts serve a service of their own.
    own = [member(f"h{i:02}/q0", f"s{i // 2}") for i in range(20)]
    plan = planned(own, restarts(*own), max_batches=3)
    assert len(plan.batches) <= 3
    assert not plan.interruptions
    for batch in plan.batches:
        services = [service for move in batch.moves for service in move.services]
        assert len(services) == len(set(services))


@pytest.mark.parametrize(
    ("own", "changes", "services", "part"),
    [
        ([member("a/q0")], [Restart("a/q0")], ["chat"], "one replica"),
        (PAIR[:2], [HostRestart("a")], ["chat"], "restart with a"),
        (TWO_SERVICES[:2], [HostRestart("a")], ["chat", "code"], "one replica"),
        (
            [member("a/q0"), member("b/q0", drained="operator")],
            [Restart("a/q0")],
            ["chat"],
            "b/q0 is drained by operator",
        ),
        (
            [member("a/q0"), member("b/q0", serves=False)],
            [Restart("a/q0")],
            ["chat"],
            "b/q0 does not serve",
        ),
        (members("a/q0", "b/q0"), [Restart("a/q0", ("b/q0",))], ["chat"], "move together"),
    ],
)
def test_an_interruption_is_announced_with_its_reason_or_refused(own, changes, services, part):
    plan = planned(own, changes)
    assert [one.service for one in plan.interruptions] == services
    assert part in plan.interruptions[0].reason
    refused = planned(own, changes, forbid_interruption=services)
    assert (refused.batches, refused.interruptions) == ((), ())
    assert [one.move for one in refused.skipped] == [plan.interruptions[0].move]
    assert part in refused.skipped[0].reason


def test_a_refused_replica_keeps_no_other_of_its_host():
    own = [member("a/q0", "chat"), member("a/q1", "code"), member("b/q0", "code")]
    plan = planned(own, restarts(*own), forbid_interruption=["chat"])
    assert moved(plan) == ["a/q1", "b/q0"]
    assert [one.move.replicas for one in plan.skipped] == [("a/q0",)]


def test_a_service_that_left_is_taken_down_without_an_announcement():
    own = [*members("a/q0", "b/q0", service="old"), *members("a/q1", "b/q1")]
    plan = planned(own, [Removal("a/q0"), Removal("b/q0")], forbid_interruption=["old"])
    assert moved(plan) == ["-a/q0", "-b/q0"]
    assert not plan.interruptions


def test_hosts_that_failed_earlier_are_skipped_and_named():
    own = members("a/q0", "b/q0", "c/q0")
    plan = planned(own, restarts(*own), failed_hosts=["b"])
    assert moved(plan) == ["a/q0", "c/q0"]
    [skipped] = plan.skipped
    assert skipped.move.replicas == ("b/q0",)
    assert "b failed earlier" in skipped.reason


def test_who_cannot_be_drained_stays_but_who_gets_no_requests_moves():
    own = [member("a/q0"), member("b/q0", serves=False), member("c/q0", "code")]
    reason = "its balancers are not in this run: add --limit lb"
    plan = planned(own, restarts(*own), undrainable={"chat": reason})
    assert moved(plan) == ["b/q0", "c/q0"]
    assert [one.move.replicas for one in plan.skipped] == [("a/q0",)]
    assert reason in plan.skipped[0].reason


def test_only_services_with_a_balancer_are_drained():
    plan = planned(TWO_SERVICES, restarts(*TWO_SERVICES), balanced=["code"])
    assert [batch.drained for batch in plan.batches] == [("a/q1",), ("b/q1",)]


def test_moves_that_wait_for_each_other_interrupt_one_service_and_then_go_on():
    """Each host brings the replica that the other one waits for."""
    own = [
        member("a/q0", "chat"),
        member("a/q1", "code", serves=False),
        member("b/q0", "code"),
        member("b/q1", "chat", serves=False),
    ]
    plan = planned(own, [HostRestart("a"), HostRestart("b")])
    assert moved(plan) == ["a/q0 a/q1 !a", "b/q0 b/q1 !b"]
    assert [one.service for one in plan.interruptions] == ["chat"]
    other = planned(own, [HostRestart("a"), HostRestart("b")], forbid_interruption=["chat"])
    assert [one.service for one in other.interruptions] == ["code"]


def test_too_few_batches_leave_something_to_the_next_run():
    """Three hosts of which each two share a service need three batches."""
    own = [
        *(member("a/q0", "x"), member("a/q1", "z")),
        *(member("b/q0", "x"), member("b/q1", "y")),
        *(member("c/q0", "y"), member("c/q1", "z")),
    ]
    reboots = [HostRestart(host) for host in "abc"]
    assert len(planned(own, reboots).batches) == 3
    plan = planned(own, reboots, max_batches=2)
    assert (len(plan.batches), plan.interruptions) == (2, ())
    assert [one.move.hosts for one in plan.skipped] == [("c",)]
    assert "run again" in plan.skipped[0].reason


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ([Restart("x/q0")], "x/q0"),
        ([Restart("a/q0", ("x/q1",))], "x/q1"),
        ([Restart("a/q0"), Removal("a/q0")], "a/q0 is both"),
    ],
)
def test_changes_that_contradict_the_members_are_refused(changes, part):
    with pytest.raises(ValueError, match=part):
        planned(PAIR, changes)


@pytest.mark.parametrize(
    ("own", "most", "slots"),
    [
        (members("a/q0"), 10, 2),
        (members("a/q0", "a/q1", "a/q2", "a/q3"), 10, 4),
        (PAIR, 10, 2),
        ([member(f"h{i}/q{n}") for i in range(7) for n in range(4)], 10, 7),
        ([member(f"h{i}/q{n}") for i in range(25) for n in range(4)], 10, 10),
        (members(*(f"a/q{n}" for n in range(16))), 10, 10),
    ],
)
def test_slots_are_enough_for_one_host_at_a_time(own, most, slots):
    assert batch_slots(own, most) == slots
    plan = planned(own, restarts(*own), max_batches=slots)
    assert len(plan.batches) <= slots
    hosts = len({one.hosts for one in own})
    assert max(len(batch.hosts) for batch in plan.batches) == math.ceil(hosts / slots)


def test_a_thousand_hosts_are_planned_fast():
    own = [member(f"h{i}/q{n}", f"s{i % 40}") for i in range(1000) for n in range(4)]
    start = time.process_time()
    plan = planned(own, restarts(*own))
    assert time.process_time() - start < 4
    assert len(plan.batches) == 10
