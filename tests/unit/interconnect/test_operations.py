"""What a run does by what was measured; no host is contacted."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pyinfra.context import ctx_host, ctx_state

from roles.checks import Check
from roles.engine import VllmSettings
from roles.hardware import LinkVerdict, declared_hardware
from roles.interconnect import InterconnectSettings, operations
from roles.plan import HostPlan, Replica
from roles.topology import ServiceSettings, plan_host

ENGINE = VllmSettings()
SERVICE = ServiceSettings.model_validate(
    {"name": "s", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
)


def with_p2p_of(old: HostPlan, new: HostPlan) -> tuple[Replica, ...] | None:
    """The replicas of the old plan with P2P as the new one has it; None where there are others."""
    if len(old.replicas) != len(new.replicas):
        return None
    pairs = zip(old.replicas, new.replicas, strict=True)
    return tuple(replace(before, p2p=now.p2p) for before, now in pairs)


class State:
    def __init__(self, is_executing: bool):
        self.is_executing = is_executing
        self.failed_hosts: set[Any] = set()


Results = list[tuple[bool, str]]
WORKS: Results = [(True, "works")]
BUSY: Results = [(True, "busy")]


class Host:
    """Answers with what all-reduces over some GPUs do, in each way that they are measured (with
    P2P or without), and keeps the questions."""

    print_prefix, name = "h: ", "h"

    def __init__(self, results: dict[tuple[int, ...], Results], executing: bool):
        self.results, self.state = results, State(executing)
        self.asked: list[Any] = []
        self.output: list[str] = []

    def get_fact(self, fact: Any, _stdin: Any, **_: Any) -> list[str]:
        line = next(line for line in _stdin[0].splitlines() if line.startswith("TASK = json"))
        task = json.loads(eval(line.removeprefix("TASK = json.loads(").removesuffix(")")))
        self.asked.append([group["gpus"] for group in task["groups"]])
        lines = [one for group in task["groups"] for one in self.answers(group["gpus"])]
        return ["@@ " + json.dumps(one) for one in [*lines, {"done": True}]]

    def answers(self, gpus: list[int]) -> Iterator[dict[str, Any]]:
        for p2p, outcome in self.results.get(tuple(gpus), WORKS):
            if outcome == "busy":
                yield {"gpus": gpus, "busy": True}
                continue
            rate = {"gb_s": 10.0} if outcome == "works" else {}
            yield {"gpus": gpus, "p2p": p2p, "outcome": outcome, **rate}

    def noop(self, why: str) -> None:
        self.output.append(why)

    def log_styled(self, text: str, **_: Any) -> None:
        self.output.append(text)


class Case:
    """One host in one run after the other: verdicts that are kept are the next run's."""

    def __init__(self, gpus: str):
        self.hardware = declared_hardware(gpus)
        self.results: dict[tuple[int, ...], Results] = {}

    def replan(self, verdicts: tuple[LinkVerdict, ...]):
        return plan_host(SERVICE, "h", replace(self.hardware, interconnect=verdicts))

    def keep(self, verdicts: tuple[LinkVerdict, ...]) -> None:
        self.hardware = replace(self.hardware, interconnect=verdicts)

    def run(self, executing: bool = True, anew: bool = False, **settings: Any):
        self.host = Host(self.results, executing)
        self.checks: list[Check] = []
        self.plan = plan_host(SERVICE, "h", self.hardware)
        target = operations.Target(
            plan=self.plan,
            hardware=self.hardware,
            build=ENGINE,
            user="llm-engine",
            devices={},
            driver_version="580.95.05",
        )
        with ctx_host.use(self.host), ctx_state.use(self.host.state):
            return list(
                operations.measure_links._inner(
                    target=lambda: target,
                    settings=InterconnectSettings(**settings),
                    anew=anew,
                    keep=self.keep,
                    replan=self.replan,
                    adopt=self.adopt,
                    record=self.checks.extend,
                )
            )

    def adopt(self, verdicts: tuple[LinkVerdict, ...]) -> bool:
        """As a run does: it goes on with another plan where P2P alone is another."""
        plan = self.replan(verdicts)
        if with_p2p_of(self.plan, plan) != plan.replicas:
            return False
        self.plan = plan
        return True

    def outcomes(self) -> dict[str, str]:
        assert {(one.host, one.name) for one in self.checks} <= {("h", "interconnect")}
        return {one.subject: one.outcome for one in self.checks}


def test_good_links_are_recorded_once_and_change_nothing(capsys):
    case = Case("4x NVIDIA A10G")
    plan = plan_host(SERVICE, "h", case.hardware)
    assert case.run() == []
    assert case.host.asked == [[[0, 1], [2, 3]]]
    assert case.plan == plan
    assert "h: GPUs 0,1: works, 10.0 GB/s" in capsys.readouterr().err
    assert [one.works for one in case.hardware.interconnect] == [True, True]
    assert case.run() == []
    assert case.host.asked == []


def test_p2p_that_hangs_is_off_in_the_same_run():
    case = Case("4x NVIDIA A10G")
    case.results[0, 1] = [(True, "hangs"), (False, "works")]
    assert case.run() == []
    assert case.outcomes() == {"GPUs 0,1": "warn", "GPUs 2,3": "pass"}
    assert [one.p2p for one in case.plan.replicas] == [False, True]
    adopted = case.plan
    # The next run plans it so from the start: the same replicas.
    assert case.run() == []
    assert case.host.asked == []
    assert case.plan.replicas == adopted.replicas


def test_another_shape_stops_the_host_with_its_new_plan():
    case = Case("4x NVIDIA A10G")
    case.results[0, 1] = [(True, "hangs"), (False, "hangs")]
    (failing,) = case.run()
    assert failing.function(case.host.state, case.host, *failing.args) is False
    assert case.host in case.host.state.failed_hosts
    assert "nothing was started or stopped here, run again" in case.host.output[0]
    told = " ".join(" ".join(case.host.output).split())
    assert "GPUs 0 and 1 hang in an all-reduce (driver 580.95.05)" in told
    assert case.outcomes() == {
        "GPUs 0,1": "fail",
        "GPUs 2,3": "pass",
        "GPUs 0,2": "pass",
        "GPUs 1,3": "pass",
    }
    # What the new plan wants was measured at once, so that the next run goes through.
    assert case.host.asked == [[[0, 1], [2, 3]], [[0, 2], [1, 3]]]
    assert case.run() == []
    assert [one.gpus for one in case.plan.replicas] == [(0, 2), (1, 3)]


def test_measuring_comes_to_an_end_though_nothing_works():
    case = Case("4x NVIDIA A10G")
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    case.results = {pair: [(True, "fails"), (False, "fails")] for pair in pairs}
    assert len(case.run()) == 1
    assert case.host.asked == [[[0, 1], [2, 3]], [[0, 2], [1, 3]], [[0, 3], [1, 2]]]
    assert plan_host(SERVICE, "h", case.hardware).replicas == ()


def test_gpus_in_use_are_left_alone():
    case = Case("4x NVIDIA A10G")
    case.results[0, 1] = BUSY
    assert case.run() == []
    assert [one.gpus for one in case.hardware.interconnect] == [(2, 3)]
    assert "GPUs 0,1 were not measured, as replicas serve from them" in case.host.output[0]
    assert case.outcomes() == {"GPUs 0,1": "skipped", "GPUs 2,3": "pass"}


def test_all_gpus_in_use_are_told_of_once():
    case = Case("4x NVIDIA A10G")
    case.results = {(0, 1): BUSY, (2, 3): BUSY}
    assert case.run() == []
    warning, verdicts = case.host.output
    assert warning.startswith("GPUs 0,1 and 2,3 were not measured, as replicas serve from them")
    assert verdicts == "0 verdicts"


@pytest.mark.parametrize(("executing", "settings"), [(False, {}), (True, {"measure": False})])
def test_nothing_is_measured_in_a_dry_run_or_if_told_so(executing: bool, settings: dict):
    case = Case("4x NVIDIA A10G")
    assert case.run(executing=executing, **settings) == []
    assert case.host.asked == []
    assert case.hardware.interconnect == ()
    assert case.checks == []


def test_all_is_measured_anew_if_told_so():
    case = Case("2x NVIDIA A10G")
    case.results[0, 1] = [(True, "wrong"), (False, "works")]
    case.run()
    case.results.clear()
    assert case.run(anew=True) == []
    assert [(one.p2p, one.works) for one in case.hardware.interconnect] == [(True, True)]
    assert [one.p2p for one in case.plan.replicas] == [True]


def test_verdicts_that_cannot_be_kept_end_no_run():
    case = Case("2x NVIDIA A10G")

    def full(verdicts: Any) -> None:
        raise OSError("no space left on device")

    case.keep = full  # type: ignore[method-assign]
    assert case.run() == []
    assert "could not be recorded: no space left" in case.host.output[0]
