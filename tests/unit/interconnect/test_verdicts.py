"""Which all-reduces are wanted, and what the host's answers say."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.engine import VllmSettings
from roles.hardware import Hardware, LinkVerdict, declared_hardware
from roles.interconnect.verdicts import (
    Group,
    merged,
    parse_answer,
    still_valid,
    summaries,
    unmeasured,
)
from roles.plan import HostPlan
from roles.topology import ServiceSettings, plan_host

LOGS = Path(__file__).parents[2] / "data" / "gpu-outputs" / "nccl"
ENGINE = VllmSettings()
DRIVER = "580.95.05"
SERVICE = ServiceSettings.model_validate(
    {"name": "s", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
)


def verdict(*gpus: int, p2p: bool = True, outcome: Any = "works", **more: Any) -> LinkVerdict:
    known = {"engine": ENGINE.version_name, "driver_version": DRIVER, "gb_s": 20.0}
    if outcome != "works":
        known["gb_s"] = None
    return LinkVerdict(gpus, p2p, outcome, **(known | more))


def of(gpus: str, *verdicts: LinkVerdict) -> tuple[HostPlan, Hardware]:
    machine = declared_hardware(gpus)
    machine = Hardware(machine.gpus, interconnect=verdicts)
    return plan_host(SERVICE, "h", machine), machine


def wanted(gpus: str, *verdicts: LinkVerdict, engine: VllmSettings = ENGINE, **known: Any):
    plan, machine = of(gpus, *verdicts)
    return unmeasured(
        plan, machine, still_valid(verdicts, engine, known.get("driver", DRIVER)), engine
    )


def test_pairs_and_the_whole_of_each_replica_are_wanted():
    assert wanted("2x NVIDIA L40S") == []
    assert wanted("4x NVIDIA A10G") == [Group((0, 1), True, False), Group((2, 3), True, False)]
    # A card for consumers is measured both ways.
    assert wanted("2x NVIDIA GeForce RTX 4090") == [Group((0, 1), True, True)]
    assert [one.gpus for one in wanted("4x NVIDIA T4")] == [(0, 1), (1, 2), (2, 3), (0, 1, 2, 3)]


def test_who_forbids_p2p_has_none_measured():
    forbidding = VllmSettings(environment={"NCCL_P2P_DISABLE": "1"})
    assert wanted("2x NVIDIA A10G", engine=forbidding) == [Group((0, 1), False, False)]


def test_a_verdict_counts_for_its_driver_and_engine_alone():
    pair = verdict(0, 1)
    assert wanted("2x NVIDIA A10G", pair) == []
    assert wanted("2x NVIDIA A10G", pair, driver="590.44.01") != []
    assert wanted("2x NVIDIA A10G", verdict(0, 1, engine="vllm-0.32.0-cuda-0")) != []


def test_what_is_recorded_is_measured_anew_though_no_plan_wants_it():
    hang = verdict(0, 1, outcome="hangs"), verdict(0, 1, p2p=False, outcome="hangs")
    plan, _ = of("2x NVIDIA A10G", *hang)
    assert plan.replicas == ()
    assert wanted("2x NVIDIA A10G", *hang) == []
    assert [one.gpus for one in wanted("2x NVIDIA A10G", *hang, driver="590.44.01")] == [(0, 1)]


def test_new_verdicts_replace_all_of_their_group():
    old, other = verdict(0, 1, p2p=False, engine="old"), verdict(2, 3)
    new = verdict(0, 1)
    assert merged([old, other], [other], [new]) == (new, other)
    # What still counts was not measured again, and stays.
    known, without = verdict(0, 1, outcome="hangs"), verdict(0, 1, p2p=False)
    assert merged([known], [known], [without]) == (without, known)


def answer(**more: Any) -> str:
    return "@@ " + json.dumps({"gpus": [0, 1], "p2p": True, "outcome": "works", "log": ""} | more)


DONE = '@@ {"done": true}'


def test_an_answer_is_read():
    log = (LOGS / "vllm-4383.txt").read_text()
    lines = [answer(gb_s=21.3456, library="nccl 2.30.7", log=log), DONE]
    (one,) = parse_answer(lines, ENGINE, DRIVER, [(0, 1)]).verdicts
    assert one == LinkVerdict(
        (0, 1),
        True,
        "works",
        21.3,
        "SHM/direct/direct",
        "nccl 2.30.7",
        DRIVER,
        ENGINE.version_name,
    )


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "the measurement did not finish"),
        (["Failed to start: Unit llm-interconnect.service already exists."], "already exists"),
        ([answer(gb_s=1.0), "Killed"], "did not finish: Killed"),
        (['@@ {"problem": "the engine\'s Python has no torch: x"}'], "no torch"),
        (
            [answer(outcome="fails", detail="CUDA out of memory", memory=True), DONE],
            "GPUs 0,1: CUD",
        ),
    ],
)
def test_what_went_wrong_is_told(lines: list[str], problem: str):
    found = parse_answer(lines, ENGINE, DRIVER, [(0, 1)])
    assert problem in found.problems[0]
    assert all(one.works for one in found.verdicts)


def test_what_fails_before_gpus_talk_is_no_verdict_of_their_links():
    lines = [answer(outcome="fails", detail="RuntimeError: no CUDA driver", unready=True), DONE]
    found = parse_answer(lines, ENGINE, DRIVER, [(0, 1)])
    assert found.verdicts == ()
    assert found.problems == ("GPUs 0,1: a process did not start: RuntimeError: no CUDA driver",)
    later = [answer(outcome="fails", detail="ncclInternalError", unready=False), DONE]
    (one,) = parse_answer(later, ENGINE, DRIVER, [(0, 1)]).verdicts
    assert (one.outcome, one.detail) == ("fails", "ncclInternalError")


def test_busy_gpus_have_no_verdict():
    found = parse_answer(['@@ {"gpus": [0, 1], "busy": true}', DONE], ENGINE, DRIVER, [(0, 1)])
    assert (found.verdicts, found.busy, found.problems) == ((), ((0, 1),), ())


@given(st.lists(st.text()))
def test_any_output_is_read(lines: list[str]):
    assert parse_answer(lines, ENGINE, DRIVER, [(0, 1)]).verdicts == ()


@pytest.mark.parametrize(
    "line",
    [
        "@@ {",
        "@@ " + "[" * 100_000,
        "@@ " + "9" * 5000,
        '@@ {"busy": true}',
        '@@ {"busy": true, "gpus": 7}',
        '@@ {"memory": true, "gpus": [0, 1]}',
        '@@ {"unready": true, "gpus": [[0]], "detail": "x"}',
        '@@ {"outcome": "works"}',
        answer(gpus=[2, 3], gb_s=1.0),
        answer(gpus="01", gb_s=1.0),
        answer(gpus=[False, True], gb_s=1.0),
        answer(outcome="sings"),
        answer(outcome=["works"]),
        answer(p2p="no", gb_s=1.0),
        answer(),
        answer(gb_s="fast"),
        answer(gb_s=True),
        answer(gb_s=float("nan")),
        answer(gb_s=-1),
        answer(gb_s=10**400),
        answer(gb_s=1.0, log=7),
        answer(gb_s=1.0, library={}),
        answer(outcome="fails", detail={"a": 1}),
    ],
)
def test_an_answer_that_is_not_as_expected_is_a_problem(line: str):
    found = parse_answer([line, DONE], ENGINE, DRIVER, [(0, 1)])
    assert (found.verdicts, found.busy) == ((), ())
    assert "the host's answer is not as expected" in found.problems[0]
    # The others count all the same.
    good = parse_answer([line, answer(gb_s=20.0), DONE], ENGINE, DRIVER, [(0, 1)])
    assert good.verdicts[0].gb_s == 20.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(["gpus", "p2p", "outcome", "gb_s", "busy", "memory", "detail", "log"]), JSON
    )
)
def test_any_answer_is_read(one: dict[str, Any]):
    found = parse_answer(["@@ " + json.dumps(one), DONE], ENGINE, DRIVER, [(0, 1)])
    assert all(verdict.gpus == (0, 1) for verdict in found.verdicts)


@pytest.mark.parametrize(
    ("verdicts", "line"),
    [
        (
            [verdict(0, 1, transport="P2P/CUMEM", gb_s=21.3)],
            "GPUs 0,1: works, 21.3 GB/s over P2P",
        ),
        (
            [
                verdict(0, 1, outcome="hangs"),
                verdict(0, 1, p2p=False, transport="SHM/direct/direct", gb_s=11.0),
            ],
            "GPUs 0,1: works, 11.0 GB/s over SHM (P2P: hangs)",
        ),
        (
            [
                verdict(0, 1, transport="P2P/IPC", gb_s=24.0),
                verdict(0, 1, p2p=False, transport="SHM/direct/direct", gb_s=11.0),
            ],
            "GPUs 0,1: works, 24.0 GB/s over P2P (without P2P: works, 11.0 GB/s over SHM)",
        ),
        (
            [verdict(0, 1, p2p=False, library="gloo")],
            "GPUs 0,1: works, 20.0 GB/s over gloo (without P2P)",
        ),
        (
            [verdict(0, 1, outcome="wrong", detail="rank 1 has a wrong sum")],
            "GPUs 0,1: wrong, rank 1 has a wrong sum",
        ),
    ],
)
def test_a_group_is_told_in_a_line(verdicts: list[LinkVerdict], line: str):
    assert list(summaries(verdicts, [(0, 1)])) == [line]
