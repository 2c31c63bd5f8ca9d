"""What the driver stage decides by itself: who is drained by whom, and which plan goes on."""

from dataclasses import replace
from pathlib import Path

import pytest
from pyinfra.context import ctx_host, ctx_state

from roles.declaration import record, recorded, recording_of
from roles.hardware import declared_hardware, entry, parse_report
from roles.stages.drivers import adopt, undrained
from roles.stages.run import Run
from tests.unit.hardware.hosts import sections
from tests.unit.stages.simulation import HOSTS, Simulation


@pytest.fixture
def simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    return Simulation(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("limit", "missing"),
    [(None, ""), (("gpu1", "lb1"), ""), (("gpu1",), "add --limit lb1")],
)
def test_a_host_that_serves_reboots_where_its_balancers_are_in_the_run(
    simulation: Simulation, limit: tuple[str, ...] | None, missing: str
):
    reason = undrained(simulation.begin(limit))
    assert reason.endswith(missing) and bool(reason) == bool(missing)


def adopted(run: Run, name: str, prove: bool = False) -> str:
    with ctx_state.use(run.state), ctx_host.use(run.state.inventory.get_host(name)):
        return adopt(run, name, prove, parse_report(sections()))


def test_a_balancer_that_failed_is_named_and_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = Simulation(tmp_path, monkeypatch).begin()
    run.state.failed_hosts.add(run.state.inventory.get_host("lb1"))
    assert undrained(run) == "it serves, and balancer lb1 failed"


def test_a_new_driver_is_recorded_where_the_hardware_is(simulation: Simulation):
    old = replace(declared_hardware("2x NVIDIA L40S"), driver_version="570.1.2")
    record(recording_of(simulation.file), {"gpu1": entry(old, {})})
    run = simulation.begin()
    assert adopted(run, "gpu1") == ""
    assert run.fleet.host("gpu1").driver_version == "580.95.05"
    assert recorded(simulation.file)["gpu1"]["driver_version"] == "580.95.05"


def test_nothing_is_recorded_of_a_declared_host(simulation: Simulation):
    run = simulation.begin()
    before = run.fleet.plans
    assert adopted(run, "gpu1") == ""
    assert run.fleet.plans == before and recorded(simulation.file) == {}


@pytest.mark.parametrize("prove", [False, True])
def test_another_plan_does_not_go_on_to_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prove: bool
):
    # One card was recorded, two report: the plan grows.
    simulation = Simulation(tmp_path, monkeypatch, HOSTS | {"gpu1": {}})
    one = replace(declared_hardware("1x NVIDIA L40S"), driver_version="570.1.2")
    record(recording_of(simulation.file), {"gpu1": entry(one, {})})
    run = simulation.begin()
    before = run.fleet.plans
    message = adopted(run, "gpu1", prove)
    assert ("run again to deploy it" in message) is not prove
    assert run.fleet.plans == before
