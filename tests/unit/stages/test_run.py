"""The state of a run: its id, its fleet, what hosts answered."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roles.hardware import LinkVerdict, parse_report
from roles.stages.run import Run, run_id
from tests.unit.hardware.hosts import sections
from tests.unit.stages.simulation import Simulation

# One replica over two cards.
PAIR = {"gpu1": {"gpus": "2x NVIDIA A10G"}, "gpu2": {"gpus": "4x NVIDIA A10G"}, "lb1": {}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Simulation(tmp_path, monkeypatch, PAIR).begin()


def measured(run: Run, *verdicts: LinkVerdict):
    hardware = run.fleet.host("gpu2").hardware
    assert hardware is not None
    return replace(hardware, interconnect=verdicts)


def test_ids_sort_by_time():
    begin = datetime(2026, 11, 29, 16, 3, 12, tzinfo=UTC)
    assert run_id(begin, 0x4F2A) == "20261129T160312Z-4f2a"
    ids = [run_id(begin + timedelta(seconds=second), 0xFFFF - second) for second in range(90)]
    assert ids == sorted(ids)


def test_a_state_has_one_run_and_another_state_another(run: Run):
    assert Run.of(run.state) is run
    assert run.id


def test_the_fleet_that_was_checked_is_the_runs(run: Run):
    assert [len(plan.replicas) for plan in run.fleet.plans] == [3]


def test_verdicts_that_turn_p2p_off_make_a_new_plan_with_which_the_run_goes_on(run: Run):
    before = run.fleet
    launched = run.launch("gpu2")
    hangs = LinkVerdict((0, 1), True, "hangs"), LinkVerdict((0, 1), False, "works")
    adopted, _ = run.replan("gpu2", measured(run, *hangs))
    assert adopted
    own = run.fleet.plans[0].on("gpu2")
    assert own is not None and [one.p2p for one in own.replicas] == [False, True]
    # The old fleet is as it was; what the host is to run from now on follows.
    old = before.plans[0].on("gpu2")
    assert old is not None and [one.p2p for one in old.replicas] == [True, True]
    first, second = run.launch("gpu2").replicas
    assert (first.digest != launched.replicas[0].digest, second) == (True, launched.replicas[1])


def test_the_run_keeps_its_plan_where_more_changes(run: Run):
    before = run.fleet
    adopted, new = run.replan("gpu2", measured(run, LinkVerdict((0, 1), True, "hangs")))
    assert not adopted and run.fleet is before
    assert new.plans[0].on("gpu2") != before.plans[0].on("gpu2")


def test_a_plan_may_be_asked_for_without_going_on_with_it(run: Run):
    before = run.fleet
    assert run.planned_with("gpu2", measured(run, LinkVerdict((0, 1), True, "hangs"))) != before
    assert run.fleet is before


def test_what_a_host_reports_is_in_the_fleet(run: Run):
    run.observed("gpu1", parse_report(sections()))
    assert run.fleet.host("gpu1").driver_version == "580.95.05"
    assert run.fleet.host("gpu2").driver_version is None


def test_a_host_is_asked_once_until_it_is_changed(run: Run):
    asked: list[int] = []

    def ask() -> int:
        asked.append(1)
        return len(asked)

    assert [run.answer("gpu1", "q", ask) for _ in range(3)] == [1, 1, 1]
    run.changed("gpu2")
    assert run.answer("gpu1", "q", ask) == 1
    run.changed("gpu1")
    assert run.answer("gpu1", "q", ask) == 2


def test_no_answer_is_not_kept(run: Run):
    answers = iter([None, 7])
    assert [run.answer("gpu1", "q", lambda: next(answers)) for _ in range(3)] == [None, 7, 7]
