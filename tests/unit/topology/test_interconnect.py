"""The plan follows what was measured between GPUs; without verdicts it stays as it was."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware import Hardware, LinkVerdict, declared_hardware
from roles.plan import HostPlan, plan_differences, saved, with_p2p_of
from roles.topology import ServiceSettings, explain, plan_fleet, plan_host
from roles.topology.rates import group_links


def verdict(*gpus: int, p2p: bool = True, outcome: Any = "works", **more: Any) -> LinkVerdict:
    more = {"library": "nccl 2.30.7", "driver_version": "580.95.05"} | more
    return LinkVerdict(gpus, p2p, outcome, **more)


def service(**more: Any) -> ServiceSettings:
    data = {"name": "s", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
    return ServiceSettings.model_validate(data | more)


def machine(gpus: str, *verdicts: LinkVerdict, links: str | None = None) -> Hardware:
    return replace(declared_hardware(gpus, links), interconnect=verdicts)


def planned(gpus: str, *verdicts: LinkVerdict, **more: Any) -> HostPlan:
    return plan_host(service(**more), "h", machine(gpus, *verdicts))


def groups(plan: HostPlan) -> list[tuple[str, tuple[int, ...], bool]]:
    return [(str(one.shape), one.gpus, one.p2p) for one in plan.replicas]


HANG = verdict(0, 1, outcome="hangs")
NOT_EVEN_SO = verdict(0, 1, p2p=False, outcome="hangs")


def test_p2p_that_does_not_work_is_off_for_that_replica_alone():
    plan = planned("4x NVIDIA A10G", HANG, verdict(0, 1, p2p=False), verdict(2, 3))
    assert groups(plan) == [("TP2", (0, 1), False), ("TP2", (2, 3), True)]
    assert plan.reasons[-1] == (
        "s-0 does without P2P: with it GPUs 0 and 1 hang in an all-reduce "
        "(nccl 2.30.7, driver 580.95.05)"
    )


def test_p2p_that_is_slower_is_off():
    def with_rates(p2p: float, without: float, transport: str = "P2P/CUMEM") -> bool:
        plan = planned(
            "2x NVIDIA GeForce RTX 4090",
            verdict(0, 1, gb_s=p2p, transport=transport),
            verdict(0, 1, p2p=False, gb_s=without, transport="SHM/direct/direct"),
        )
        return plan.replicas[0].p2p

    assert with_rates(20, 10)
    assert with_rates(9.5, 10)
    assert not with_rates(8, 10)
    # Both went over the host's memory: the difference is chance.
    assert with_rates(8, 10, "SHM/direct/direct")


def test_two_of_a_group_decide_for_all_of_it():
    assert not planned("4x NVIDIA A10G", HANG, verdict(0, 1, p2p=False), max_model_len=16384)\
        .replicas[0].p2p  # fmt: skip


def test_gpus_that_do_not_work_together_are_in_no_replica():
    plan = planned("4x NVIDIA A10G", HANG, NOT_EVEN_SO)
    assert groups(plan) == [("TP2", (0, 2), True), ("TP2", (1, 3), True)]
    assert (
        "no replica over GPUs that do not work together: GPUs 0 and 1 hang in an all-reduce "
        "(nccl 2.30.7, driver 580.95.05)"
    ) in plan.reasons


def test_what_hung_and_was_not_measured_without_p2p_is_not_trusted():
    assert (0, 1) not in [one.gpus for one in planned("4x NVIDIA A10G", HANG).replicas]


def test_broken_host_memory_is_no_matter_where_p2p_works():
    fine = verdict(0, 1, gb_s=20.0, transport="P2P/CUMEM")
    plan = planned("2x NVIDIA GeForce RTX 4090", fine, NOT_EVEN_SO)
    assert groups(plan) == [("TP2", (0, 1), True)]


def test_where_only_host_memory_was_asked_its_verdict_decides():
    assert planned("2x NVIDIA A10G", NOT_EVEN_SO).replicas == ()


def test_single_gpus_serve_where_none_work_together():
    small = {"model": "Qwen/Qwen2.5-7B-Instruct", "single_endpoint": True}
    before = planned("2x NVIDIA A10G", **small)
    assert before.replicas[0].shape.gpus == 2
    plan = planned("2x NVIDIA A10G", HANG, NOT_EVEN_SO, **small)
    assert groups(plan) == [("one GPU", (0,), True)]
    assert any("TP2 is not possible: GPUs 0 and 1 hang" in text for text in plan.rejected)


def test_a_host_that_is_left_with_nothing_says_why():
    wrong = [verdict(0, 1, p2p=p2p, outcome="wrong") for p2p in (True, False)]
    plan = planned("2x NVIDIA A10G", *wrong)
    assert plan.replicas == ()
    assert (
        "it needs GPUs that work together, and GPUs 0 and 1 get a wrong result of an all-reduce"
    ) in plan.problems[-1]
    assert plan.remedies == ("GPUs that work together",)


def test_pipelines_need_gpus_that_work_together_too():
    # 40 heads do not divide by 3: a pipeline over three.
    pipeline = {"model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
    all_pairs = [
        verdict(i, j, p2p=p2p, outcome="fails")
        for i, j in ((0, 1), (0, 2), (1, 2))
        for p2p in (True, False)
    ]
    assert planned("3x NVIDIA A10G", **pipeline).replicas
    assert planned("3x NVIDIA A10G", *all_pairs, **pipeline).replicas == ()


def broken(*pairs: tuple[int, int]) -> list[LinkVerdict]:
    return [verdict(*p, p2p=p2p, outcome="hangs") for p in pairs for p2p in (True, False)]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(2, 3)], [(0, 2), (1, 3)]),
        ([(0, 1), (2, 3)], [(0, 2), (1, 3)]),
        ([(0, 1), (0, 2)], [(0, 3), (1, 2)]),
        ([(1, 2), (1, 3), (2, 3)], [(0, 1)]),
    ],
)
def test_as_many_groups_are_formed_as_work(pairs: list, expected: list):
    plan = planned("4x NVIDIA A10G", *broken(*pairs))
    assert [one.gpus for one in plan.replicas] == expected


def test_farther_gpus_work_together_where_near_ones_do_not():
    near = ((0, 1, "PIX"), (0, 2, "SYS"), (0, 3, "SYS"), (1, 2, "SYS"), (1, 3, "SYS"))
    hardware = replace(machine("4x NVIDIA A10G", *broken((2, 3))), links=(*near, (2, 3, "PIX")))
    plan = plan_host(service(), "h", hardware)
    assert [one.gpus for one in plan.replicas] == [(0, 2), (1, 3)]


def test_what_is_left_over_is_filled_with_smaller_replicas():
    pairs = broken((0, 1), (0, 2), (0, 3), (1, 2), (1, 3))
    plan = planned("4x NVIDIA L40S", *pairs, concurrency=20)
    assert [one.gpus for one in planned("4x NVIDIA L40S", concurrency=20).replicas] == [
        (0, 1),
        (2, 3),
    ]
    assert [one.gpus for one in plan.replicas] == [(2, 3), (0,), (1,)]


def test_without_p2p_the_estimate_goes_through_host_memory():
    nvlink = machine("2x NVIDIA H100 80GB HBM3", links="nvlink")
    assert group_links(nvlink.gpus, nvlink).kind == "nvlink"
    off = replace(nvlink, interconnect=(HANG, verdict(0, 1, p2p=False)))
    found = group_links(off.gpus, off)
    assert (found.kind, found.peers) == ("pcie", False)


def test_a_link_far_slower_than_it_should_be_corrects_the_estimate():
    def best(*rates: float, library: str = "nccl 2.30.7") -> HostPlan:
        pairs = zip(((0, 1), (1, 2), (2, 3)), rates, strict=False)
        measured = [verdict(*pair, gb_s=rate, library=library) for pair, rate in pairs]
        return planned("4x NVIDIA A10G", *measured, concurrency=2)

    assert best().replicas[0].shape.gpus == 4
    assert best(12, 12, 12) == best()
    # A riser of one lane: tensor parallel over it would wait for it at every layer.
    assert best(12, 0.05, 12).replicas[0].shape.gpus == 2
    assert best(12, 0.05, 12, library="gloo") == best()
    slow = planned("2x NVIDIA A10G", verdict(0, 1, gb_s=0.8))
    assert slow.reasons[-1].startswith("GPUs 0, 1: an all-reduce was measured at 0.8 GB/s, far")


def test_a_plan_and_its_file_say_that_p2p_is_off():
    hardware = machine("2x NVIDIA GeForce RTX 4090", HANG, verdict(0, 1, p2p=False))
    before = plan_fleet(service(), {"h": replace(hardware, interconnect=())})
    now = plan_fleet(service(), {"h": hardware})
    assert "why: s-0 does without P2P" in explain(now)
    assert "p2p" not in saved([before])
    assert "p2p: false" in saved([now])
    assert plan_differences(saved([now]), [now]) == []
    (output,) = plan_differences(saved([before]), [now])
    assert output.startswith("h/s-0: with P2P → without P2P, because links unset → with P2P GPUs 0")


def test_only_p2p_is_taken_over_from_a_new_plan():
    old = planned("4x NVIDIA A10G")
    off = planned("4x NVIDIA A10G", HANG, verdict(0, 1, p2p=False))
    adopted = with_p2p_of(old, off)
    assert adopted is not None
    assert [one.p2p for one in adopted.replicas] == [False, True]
    assert with_p2p_of(old, planned("4x NVIDIA A10G", HANG, NOT_EVEN_SO)) is None
    assert with_p2p_of(old, planned("2x NVIDIA A10G")) is None


VERDICTS = st.lists(
    st.builds(
        lambda gpus, p2p, outcome, rate: LinkVerdict(
            tuple(sorted(gpus)), p2p, outcome, rate if outcome == "works" else None, "P2P/IPC"
        ),
        st.sets(st.integers(0, 3), min_size=2),
        st.booleans(),
        st.sampled_from(["works", "hangs", "wrong", "fails"]),
        st.floats(1, 100),
    ),
    max_size=8,
    unique_by=lambda one: (one.gpus, one.p2p),
)


@given(VERDICTS)
def test_no_replica_needs_what_was_seen_not_to_work(verdicts: list[LinkVerdict]):
    plan = planned("4x NVIDIA A10G", *verdicts)
    for replica in plan.replicas:
        for one in verdicts:
            if set(one.gpus) <= set(replica.gpus) and one.p2p == replica.p2p:
                assert one.works


@given(VERDICTS)
def test_good_verdicts_change_no_plan(verdicts: list[LinkVerdict]):
    good = [replace(one, outcome="works", gb_s=20.0) for one in verdicts]
    assert planned("4x NVIDIA A10G", *good) == planned("4x NVIDIA A10G")


@pytest.mark.parametrize("gpus", ["4x NVIDIA A10G", "2x NVIDIA GeForce RTX 4090"])
def test_services_on_parts_of_a_host_keep_their_verdicts(gpus: str):
    from roles.topology.allocation import part_of

    hardware = machine(gpus, HANG)
    assert part_of(hardware, hardware.gpus[:2]).interconnect == (HANG,)
    assert part_of(hardware, hardware.gpus[1:]).interconnect == ()
