"""What is recorded of hosts, and what is not recorded in silence."""

from pathlib import Path

import pytest
from pyinfra.context import ctx_host, ctx_state

from roles.declaration import recorded, recording_of
from roles.hardware import PART as HARDWARE
from roles.hardware import LinkVerdict, parse_report
from roles.hardware.facts import HostReport
from roles.host.facts import Answers
from roles.stages.discovery import accept_hardware, discover, record_verdicts
from tests.unit.hardware.hosts import query, row, sections
from tests.unit.stages.simulation import HOSTS, Simulation


@pytest.fixture
def simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    simulation = Simulation(tmp_path, monkeypatch)
    for name in simulation.machines:
        says(simulation, name, sections())
    return simulation


def says(simulation: Simulation, host: str, hardware: dict[str, str]) -> None:
    facts = simulation.machines[host].facts
    facts[Answers] = lambda **_: {HARDWARE.name: hardware}
    facts[HostReport] = parse_report(hardware)


def names(simulation: Simulation, host: str) -> list[str]:
    return [gpu["name"] for gpu in recorded(simulation.file)[host]["gpus"]]


def test_gpu_hosts_are_recorded_and_balancers_are_not(simulation: Simulation):
    simulation.prepare(simulation.begin(), discover)
    assert sorted(recorded(simulation.file)) == ["gpu1", "gpu2", "gpu3"]
    assert names(simulation, "gpu1") == ["NVIDIA L40S"] * 2


def test_hosts_outside_the_limit_keep_their_entries(simulation: Simulation):
    simulation.prepare(simulation.begin(), discover)
    says(simulation, "gpu2", sections(query=query(row(0))))
    simulation.prepare(simulation.begin(["gpu2"]), discover)
    assert names(simulation, "gpu1") == ["NVIDIA L40S"] * 2
    assert names(simulation, "gpu2") == ["NVIDIA L40S"]


def test_verdicts_stand_beside_what_is_recorded(simulation: Simulation):
    run = simulation.begin()
    record_verdicts(run, "gpu1", (LinkVerdict((0, 1), True, "hangs"),))
    simulation.prepare(simulation.begin(["gpu2"]), discover)
    assert sorted(recorded(simulation.file)) == ["gpu1", "gpu2"]
    assert simulation.fleet().host("gpu1").hardware != simulation.fleet().host("gpu3").hardware


def test_accepted_hardware_is_recorded_where_it_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulation: Simulation
):
    simulation.prepare(simulation.begin(), discover)
    says(simulation, "gpu2", sections(query=query(row(0))))
    run = simulation.begin()
    first = run.state.inventory.get_host("gpu1")
    with ctx_state.use(run.state), ctx_host.use(first):
        accept_hardware(run)
    assert names(simulation, "gpu2") == ["NVIDIA L40S"]
    assert len(HOSTS) - 1 == len(recorded(simulation.file))


@pytest.mark.parametrize(
    ("field", "absurd"), [("capability", "0.0"), ("capability", "999"), ("total", "99999999")]
)
def test_a_host_cannot_spoil_the_recording(simulation: Simulation, field: str, absurd: str):
    simulation.prepare(simulation.begin(), discover)
    before = recording_of(simulation.file).read_text()
    says(simulation, "gpu2", sections(query=query(row(0, **{field: absurd}))))
    run = simulation.begin()
    simulation.prepare(run, discover)
    failed = {one.name for one in run.state.failed_hosts}
    assert (failed, recording_of(simulation.file).read_text()) == ({"gpu2"}, before)
    run = simulation.begin()
    with ctx_state.use(run.state), ctx_host.use(run.state.inventory.get_host("gpu1")):
        accept_hardware(run)
    assert {one.name for one in run.state.failed_hosts} == {"gpu2"}
    assert recording_of(simulation.file).read_text() == before
    assert simulation.fleet()


@pytest.mark.parametrize(("install", "warned"), [("never", True), ("when-needed", False)])
def test_what_the_driver_stage_sees_to_is_no_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    install: str,
    warned: bool,
):
    simulation = Simulation(tmp_path, monkeypatch, driver={"install": install})
    asleep = query(row(0, persistence="Disabled"), row(1, persistence="Disabled"))
    for name in simulation.machines:
        says(simulation, name, sections(query=asleep))
    with caplog.at_level("WARNING"):
        simulation.prepare(simulation.begin(), discover)
    assert ("persistence mode" in caplog.text) is warned
