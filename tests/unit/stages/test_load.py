"""The first stage: one fleet and one plan a run, held to the saved one."""

from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import PyinfraError

from roles.declaration import record, recording_of, saved_plan_of, write_whole
from roles.plan import saved
from roles.stages.load import load
from roles.stages.run import Run
from roles.topology import explain
from tests.unit.stages.simulation import HOSTS, Simulation


@pytest.fixture
def simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    return Simulation(tmp_path, monkeypatch)


def loaded(simulation: Simulation, **data: Any) -> list[Run]:
    """What every host of a run gets."""
    runs: list[Run] = []
    simulation.prepare(simulation.begin(**data), lambda _: runs.append(load()))
    return runs


@pytest.mark.parametrize("whole", [True, False])
def test_all_hosts_share_one_run_whose_plan_is_printed_once_where_it_is_asked_for(
    simulation: Simulation, capsys: pytest.CaptureFixture[str], whole: bool
):
    runs: list[Run] = []
    simulation.prepare(simulation.begin(), lambda _: runs.append(load(shown=whole)))
    assert len(runs) == len(HOSTS) and len(set(map(id, runs))) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("Plan for s")) == ("", int(whole))


@pytest.mark.parametrize("whole", [True, False])
def test_the_plan_is_printed_as_the_fleet_command_does(
    simulation: Simulation, capsys: pytest.CaptureFixture[str], whole: bool
):
    run = simulation.begin(explain=whole)
    simulation.prepare(run, lambda _: load(shown=True))
    printed = capsys.readouterr().err
    assert all(explain(plan, whole) in printed for plan in run.fleet.plans)
    assert ("--data explain=true" in printed) is not whole


def test_the_fleet_is_built_once(simulation: Simulation, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("roles.stages.load.build", None)
    (run, *_) = loaded(simulation)
    assert len(run.fleet.hosts) == len(HOSTS)


def test_the_fleet_is_built_anew_where_the_recording_is_another(simulation: Simulation):
    run = simulation.begin()
    entry = {"gpu1": {"gpus": [{"name": "NVIDIA L40S", "memory_mib": 46068}] * 2}}
    record(recording_of(simulation.file), entry)
    simulation.prepare(run, lambda _: load())
    assert run.declaration.recorded == entry


def test_hosts_without_known_gpus_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    simulation = Simulation(tmp_path, monkeypatch, HOSTS | {"gpu3": {}})
    with pytest.raises(PyinfraError, match=r"hosts\[gpu3\]\.gpus: are neither declared nor"):
        loaded(simulation)


def test_another_plan_than_the_saved_one_stops_the_run(simulation: Simulation):
    fleet = simulation.fleet()
    file = saved_plan_of(simulation.file)
    write_whole(file, saved(fleet.plans))
    assert loaded(simulation)
    simulation.hosts = HOSTS | {"gpu3": {"gpus": "1x NVIDIA L40S"}}
    with pytest.raises(PyinfraError, match="the plan is not the saved one"):
        loaded(simulation)
    (run, *_) = loaded(simulation, accept_plan=True)
    assert file.read_text() == saved(run.fleet.plans)


def test_several_services_are_loaded(simulation: Simulation):
    simulation.settings["services"] = [
        {"name": "a", "model": "Qwen/Qwen3-8B", "max_model_len": 4096},
        {
            "name": "b",
            "model": "Qwen/Qwen3-8B",
            "max_model_len": 4096,
            "first_port": 9001,
            "route": {"path_prefix": "/b"},
        },
    ]
    (run, *_) = loaded(simulation)
    assert [service.name for service, _ in run.fleet.on("gpu1")] == ["a", "b"]
