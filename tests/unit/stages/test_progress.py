"""What is said while a run waits, how often, and how long it took last time."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.state import StateStage

from roles.host.outcome import PHASES
from roles.stages.progress import (
    Progress,
    Waited,
    progress_line,
    read_durations,
    write_durations,
)


@pytest.mark.parametrize(
    ("waited", "batches", "line"),
    [
        ([Waited("lb1", "Balancer | Reload", (), 6.4)], 0, "... Balancer | Reload: lb1 6 s"),
        (
            [
                Waited("gpu1", "Move batch 1", ("a-0", "a-1"), 34, 42.2),
                Waited("gpu2", "Move batch 1", (), 5),
            ],
            3,
            "... Move batch 1: gpu1 (a-0, a-1) 34 s, last time 42 s, gpu2 5 s (of 3 batches)",
        ),
        ([Waited("gpu1", "Install", (), 90)], 3, "... Install: gpu1 90 s"),
    ],
)  # fmt: skip
def test_a_line_names_host_work_and_time(waited: list[Waited], batches: int, line: str):
    assert progress_line(waited, batches) == line


@dataclass(eq=False)
class Host:
    name: str
    executing_op_hash: str | None = None
    connector_data: dict[str, Any] = field(default_factory=dict)


class Pyinfra:
    """pyinfra's state while hosts are at work."""

    initialised = is_executing = True
    current_stage = StateStage.Execute

    def __init__(self) -> None:
        self.inventory = [Host("gpu1")]
        self.failed_hosts: set[Host] = set()
        self.ops: dict[Host, dict[str, Any]] = {self.inventory[0]: {}}

    def get_op_meta(self, op_hash: str) -> Any:
        return SimpleNamespace(names={op_hash})

    def does(self, work: str | None) -> None:
        self.inventory[0].executing_op_hash = work


def watched(in_place: bool = False) -> tuple[Pyinfra, Progress, list[str]]:
    shown: list[str] = []
    pyinfra = Pyinfra()
    return pyinfra, Progress(pyinfra, shown.append, in_place), shown  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("in_place", "at"), [(False, [5, 15, 25]), (True, list(range(5, 30)))]
)  # fmt: skip
def test_what_takes_long_is_said_again_and_again(in_place: bool, at: list[int]):
    pyinfra, progress, shown = watched(in_place)
    pyinfra.does("Install")
    for now in range(30):
        progress.look(now)
    assert shown == [f"... Install: gpu1 {seconds} s" for seconds in at]


def test_what_begins_is_said_in_time_whatever_was_said_before():
    pyinfra, progress, shown = watched()
    for now in range(14):
        pyinfra.does("Install" if now < 7 else "Start")
        progress.look(now)
    assert shown == ["... Install: gpu1 5 s", "... Start: gpu1 5 s"]


def test_what_replicas_are_at_is_said():
    pyinfra, progress, shown = watched()
    pyinfra.does("Move")
    pyinfra.inventory[0].connector_data[PHASES] = {"a-1": "load", "a-0": "serves"}
    for now in range(6):
        progress.look(now)
    assert shown == ["... Move: gpu1 (a-0: serves, a-1: load) 5 s"]


def test_what_an_installation_is_at_is_said_without_its_name():
    pyinfra, progress, shown = watched()
    pyinfra.does("Install llama.cpp-1")
    pyinfra.inventory[0].connector_data[PHASES] = {"llama.cpp-1": "download"}
    for now in range(6):
        progress.look(now)
    assert shown == ["... Install llama.cpp-1: gpu1 (download) 5 s"]


def test_short_work_is_not_mentioned():
    pyinfra, progress, shown = watched()
    for now in range(30):
        pyinfra.does(f"Work {now // 4}")
        progress.look(now)
    assert shown == [] and progress.took == {}


def test_how_long_it_took_is_kept_for_the_next_run_whatever_its_batch(tmp_path: Path):
    pyinfra, progress, _ = watched()
    for now in range(40):
        pyinfra.does("Move batch 2" if now < 30 else None)
        progress.look(now)
    write_durations(tmp_path, progress.took | {("gone", "Move batch"): 9.0}, ["gpu1"])
    pyinfra, progress, shown = watched()
    progress.last |= read_durations(tmp_path)
    pyinfra.does("Move batch 1")
    for now in range(7):
        progress.look(now)
    assert shown == ["... Move batch 1: gpu1 5 s, last time 30 s"]


@pytest.mark.parametrize(
    ("complete", "error", "kept"), [(True, False, 9), (True, True, None), (False, False, None)]
)
def test_what_failed_or_was_killed_took_no_time(complete: bool, error: bool, kept: float | None):
    pyinfra, progress, _ = watched()
    meta = SimpleNamespace(is_complete=lambda: complete, did_error=lambda: error)
    pyinfra.ops[pyinfra.inventory[0]] = {"Move": SimpleNamespace(operation_meta=meta)}
    for now in range(12):
        pyinfra.does("Move" if now < 9 else None)
        progress.look(now)
    assert progress.took.get(("gpu1", "Move")) == kept


def test_what_goes_on_when_a_run_ends_took_no_time():
    pyinfra, progress, _ = watched()
    pyinfra.does("Move")
    progress.look(-1000)
    progress.stop()
    assert progress.took == {}


@pytest.mark.parametrize("text", ["", "[]", '{"gpu1": 3}', '{"gpu1": {"x": "y"}}', "{"])
def test_durations_that_cannot_be_read_are_not_known(tmp_path: Path, text: str):
    (tmp_path / "durations.json").write_text(text)
    assert read_durations(tmp_path) == {}
