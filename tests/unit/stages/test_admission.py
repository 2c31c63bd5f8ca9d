"""Who may be changed: hosts that have what the inventory says, and can be reached as root."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roles.hardware import PART as HARDWARE
from roles.host.facts import Answers
from roles.stages.admission import admit_as_deployed, compare, host_needs
from roles.stages.run import Run
from tests.unit.hardware.hosts import query, row, sections
from tests.unit.stages.simulation import Simulation

TWO = {"gpu1": {"gpus": "2x NVIDIA L40S"}, "gpu2": {"gpus": "2x NVIDIA L40S"}, "lb1": {}}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Simulation]:
    def made(hosts: dict[str, dict[str, Any]] = TWO, **reports: dict[str, str]) -> Simulation:
        """Machines that report two L40S, but for those whose report is given."""
        simulation = Simulation(tmp_path, monkeypatch, hosts)
        for name, machine in simulation.machines.items():
            message = {HARDWARE.name: reports.get(name) or sections()}
            machine.facts = {Answers: lambda message=message, **_: message}
        return simulation

    return made


def admitted(simulation: Simulation, *limit: str) -> tuple[list[str], Run]:
    run, names = simulation.begin(limit or None), []

    def stage(run: Run) -> None:
        from pyinfra import host

        if admit_as_deployed(run):
            names.append(host.name)

    simulation.prepare(run, stage)
    return sorted(names), run


def test_hosts_as_declared_are_admitted_with_what_they_report(make: Callable[..., Simulation]):
    names, run = admitted(make())
    assert names == ["gpu1", "gpu2", "lb1"] and not run.report.reasons
    assert run.fleet.host("gpu1").driver_version == "580.95.05"


def test_a_host_with_other_gpus_is_stopped_alone(make: Callable[..., Simulation]):
    names, run = admitted(make(gpu2=sections(query=query(row(0)))))
    assert names == ["gpu1", "lb1"]
    reasons = run.report.reasons
    assert list(reasons) == ["gpu2"] and "GPU 1 is missing" in reasons["gpu2"]


def test_hosts_outside_the_limit_are_not_asked(make: Callable[..., Simulation]):
    simulation = make()
    names, _ = admitted(simulation, "gpu1")
    assert names == ["gpu1"]
    assert simulation.machines["gpu2"].asked == []


def test_a_host_is_asked_once_for_all_that_is_compared(make: Callable[..., Simulation]):
    simulation = make()
    simulation.prepare(simulation.begin(), compare, admit_as_deployed)
    assert [machine.asked for machine in simulation.machines.values()] == [[Answers]] * 3


def test_a_retired_host_is_admitted_whatever_its_gpus(make: Callable[..., Simulation]):
    broken = sections(query=query(row(0)))
    simulation = make(TWO | {"gpu2": {"gpus": "2x NVIDIA L40S", "retired": True}}, gpu2=broken)
    names, run = admitted(simulation)
    assert names == ["gpu1", "gpu2", "lb1"]
    needs = host_needs(run.fleet, run.fleet.host("gpu2"))
    assert (needs.expected, needs.driver, needs.engine) == (None, None, None)


def test_a_deploy_needs_of_a_host_what_its_roles_need(make: Callable[..., Simulation]):
    fleet = make().fleet()
    engines, balancer = (host_needs(fleet, fleet.host(name)) for name in ("gpu1", "lb1"))
    assert engines.engine is not None and engines.balancer is None
    assert set(engines.engine.ports) == {8001, 8002}
    assert balancer.balancer is not None and balancer.engine is None


def test_a_service_is_needed_with_its_own_engine(make: Callable[..., Simulation]):
    """What the weights of each need is asked of the build that the host's settings give it."""
    mirror = {"vllm": {"environment": {"HF_ENDPOINT": "http://hub.local"}}}
    fleet = make(TWO | {"gpu2": TWO["gpu2"] | {"engines": mirror}}).fleet()
    engines = [host_needs(fleet, fleet.host(name)).engine for name in ("gpu1", "gpu2")]
    hubs = [weights.hub for engine in engines if engine for weights in engine.weights]
    assert hubs == ["https://huggingface.co", "http://hub.local"]
