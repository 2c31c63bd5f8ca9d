"""A run holds its hosts; one that another run holds fails alone."""

from pathlib import Path

import pytest

from roles.host import operations
from roles.host.lease import BusyHostError
from roles.stages.hold import hold
from tests.unit.stages.simulation import Simulation


def test_a_host_that_another_run_holds_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    taken: list[str] = []

    def take(host: str, run: str) -> None:
        taken.append(str(host))
        if str(host) == "gpu2":
            raise BusyHostError("run 20261130T032409Z-4f2a, begun at 03:24")
        if str(host) == "lb1":
            raise OSError("no flock")

    # What reaches a host is tested with processes and connections of its own.
    monkeypatch.setattr(operations, "take", take)
    simulation = Simulation(tmp_path, monkeypatch)
    run = simulation.begin()
    simulation.prepare(run, hold)
    assert taken == [], "a dry run holds nothing"
    run = simulation.begin()
    assert simulation.execute(run, hold) == {"gpu2", "lb1"}
    assert run.busy == {"gpu2"}
    assert "run 20261130T032409Z-4f2a, begun at 03:24, is at work on this host" in caplog.text
