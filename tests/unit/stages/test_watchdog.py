"""The watchdog is set up on hosts with replicas, and knows the other hosts of their services."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roles.balancer import PART as BALANCER
from roles.balancer import BalancerState, Drain
from roles.balancer.state import dump_state
from roles.engine.facts import Installed, InstalledEngines
from roles.hardware import PART as HARDWARE
from roles.host import paths
from roles.host.facts import Answers
from roles.launch.facts import LaunchFacts
from roles.stages.quarantine import quarantine
from roles.stages.status import status
from roles.stages.watchdog import planned_watch, watchdog
from roles.watchdog import WatchdogState
from roles.watchdog.facts import WatchdogFacts, WatchdogStatus
from roles.watchdog.quarantine import Quarantine
from roles.watchdog.render import watchdog_files
from roles.watchdog.status import HostStatus
from tests.unit.hardware.hosts import sections
from tests.unit.stages.fleet import serves
from tests.unit.stages.simulation import HOSTS, SERVICE, Simulation

Make = Callable[..., Simulation]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    def made(hosts: dict[str, dict[str, Any]] = HOSTS, **settings: Any) -> Simulation:
        simulation = Simulation(tmp_path, monkeypatch, hosts, **settings)
        for machine in simulation.machines.values():
            machine.facts = {
                InstalledEngines: Installed(),
                LaunchFacts: serves(),
                WatchdogFacts: WatchdogState(),
            }
        return simulation

    return made


def done(simulation: Simulation) -> dict[str, int]:
    """How many commands each host was given."""
    return {name: len(machine.commands) for name, machine in simulation.machines.items()}


def test_each_gpu_host_gets_one_and_a_second_run_changes_nothing(make: Make):
    simulation = make()
    assert simulation.execute(simulation.begin(), watchdog) == set()
    assert done(simulation) == {"gpu1": 1, "gpu2": 1, "gpu3": 1, "lb1": 0}
    again = simulation.begin()
    for name, machine in simulation.machines.items():
        machine.commands.clear()
        files = watchdog_files(planned_watch(again, name)) if name.startswith("gpu") else ()
        states = {file.path: file.state for file in files}
        machine.facts[WatchdogFacts] = WatchdogState(states, up=True, user=True)
    assert simulation.execute(again, watchdog) == set()
    assert done(simulation) == dict.fromkeys(HOSTS, 0)


def test_a_retired_host_and_one_that_nobody_watches_lose_theirs(make: Make):
    for hosts, services in (
        (HOSTS | {"gpu1": {**HOSTS["gpu1"], "retired": True}}, [SERVICE]),
        (HOSTS, [{**SERVICE, "watchdog": {"enabled": False}}]),
    ):
        simulation = make(hosts, services=services)
        files = {paths.WATCHDOG_SETTINGS: "644 root root 0"}
        state = WatchdogState(files, up=True, user=True)
        simulation.machines["gpu1"].facts[WatchdogFacts] = state
        assert simulation.execute(simulation.begin(), watchdog) == set()
        (command,) = simulation.machines["gpu1"].commands
        assert "userdel" in command and "useradd" not in command


def test_it_knows_the_other_hosts_of_its_services(make: Make):
    other = {**SERVICE, "name": "t", "watchdog": {"stall_timeout_s": 30}}
    other |= {"route": {"path_prefix": "/t"}, "first_port": 9001}
    hosts = HOSTS | {"gpu3": {**HOSTS["gpu3"], "pinned_gpus": {"t": [0, 1]}}}
    simulation = make(hosts, services=[SERVICE, other])
    run = simulation.begin(limit=["gpu1"])
    found = {name: planned_watch(run, name) for name in ("gpu1", "gpu3")}
    own = {name: set(one.services) for name, one in found.items()}
    assert "t" in own["gpu3"]
    for name, one in found.items():
        peers = {peer.host: set(peer.replicas.values()) for peer in one.peers}
        # The whole inventory's, whatever this run is limited to.
        assert peers == {
            other: shared
            for other in ("gpu1", "gpu2", "gpu3")
            if other != name
            and (shared := {s.name for s, p in run.fleet.on(other) if p.replicas} & own[name])
        }
        assert one.allowed[:1] == (run.fleet.addresses["lb1"],)
        (watch,) = one.engines.values()
        assert watch["path"] == "/metrics"
    assert found["gpu3"].services["t"].stall_timeout_s == 30


def test_quarantines_are_shown_and_one_is_lifted(make: Make, capsys: pytest.CaptureFixture[str]):
    simulation = make()
    state = WatchdogState(quarantines=(Quarantine("s-0", "Xid 79"), Quarantine("s-1", "hot")))
    simulation.machines["gpu1"].facts[WatchdogFacts] = state
    assert simulation.execute(simulation.begin(), quarantine) == set()
    shown = capsys.readouterr().err
    assert "s-0 is quarantined: Xid 79" in shown and "no replica is quarantined" in shown
    assert done(simulation) == dict.fromkeys(HOSTS, 0)
    assert simulation.execute(simulation.begin(lift="gpu1/s-1"), quarantine) == set()
    assert done(simulation) == {"gpu1": 1, "gpu2": 0, "gpu3": 0, "lb1": 0}
    assert "quarantine/s-1.json" in simulation.machines["gpu1"].commands[0]
    assert simulation.execute(simulation.begin(lift="gpu2/s-1"), quarantine) == {"gpu2"}


def test_the_fleet_is_shown_as_it_is(make: Make, capsys: pytest.CaptureFixture[str]):
    simulation = make(HOSTS | {"gpu2": {**HOSTS["gpu2"], "drained": True}})
    for machine in simulation.machines.values():
        machine.facts[WatchdogStatus] = HostStatus(("s-0 (s): serving for 3 h",))
    simulation.machines["gpu3"].facts[WatchdogFacts] = WatchdogState(
        quarantines=(Quarantine("s-1", "Xid 79"),)
    )
    drained = BalancerState(drains=(Drain("gpu1/*", "operator", "r", "monday", reason="fans"),))
    simulation.machines["lb1"].facts[Answers] = {
        HARDWARE.name: sections(),
        BALANCER.name: {"state": dump_state(drained), "end": ""},
    }
    assert simulation.execute(simulation.begin(), status) == set()
    shown = capsys.readouterr().err
    assert shown.count("host gpu1 is drained by a person since monday: fans") == 1
    assert shown.count("s-0 (s): serving for 3 h") == 3
    assert shown.count("drained by the inventory") == 1
    assert shown.count("s-1 is quarantined: Xid 79") == 1
    assert done(simulation) == dict.fromkeys(HOSTS, 0)
