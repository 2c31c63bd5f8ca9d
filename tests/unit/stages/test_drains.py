"""A person drains a host, a replica or a GPU, and undrains it; pyinfra's own run over fakes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roles.balancer import BalancerState, Drain
from roles.balancer.upstreams import servers
from roles.fleet.checked import RefusedError
from roles.hardware import PART as HARDWARE
from roles.host.facts import Answers
from roles.host.paths import unit_name
from roles.host.question import SUDO
from roles.launch.state import ReplicaUnit
from roles.stages.difference import difference
from roles.stages.drains import drain, undrain
from roles.stages.engines import engines
from roles.stages.members import planned_on
from roles.stages.roll import roll
from roles.validation.facts import Observations
from roles.validation.observations import (
    Completion,
    GpuProcess,
    GpuUse,
    HostObservations,
    LoadResult,
    UnitStatus,
)
from roles.watchdog import Quarantine
from tests.unit.hardware.hosts import sections
from tests.unit.stages.fleet import ServingFleet
from tests.unit.stages.simulation import SERVICE

Make = Callable[..., ServingFleet]
WHY = {"reason": "fans"}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda **settings: ServingFleet(tmp_path, monkeypatch, **settings)


def drained(fleet: ServingFleet, stage: Any = drain, limit: Any = None, **data: Any) -> set[str]:
    """Which hosts failed by a drain; afterwards `fleet.balancer` is the state of the balancer."""
    fleet.run = fleet.begin(limit, **(WHY | data))
    return fleet.execute(fleet.run, stage)


def outs(of: BalancerState) -> set[str]:
    found = [one for upstream in of.upstreams for one in servers(upstream, of.drains)]
    return {one.member.id for one in found if one.out}


@pytest.mark.parametrize(
    ("data", "out"),
    [
        ({"host": "gpu1"}, {"gpu1/s-0", "gpu1/s-1"}),
        ({"replica": "gpu2/s-1"}, {"gpu2/s-1"}),
        ({"gpu": "gpu3/0"}, {"gpu3/s-0"}),
    ],
)
def test_a_drain_is_recorded_with_its_reason_and_a_second_run_changes_nothing(
    make: Make, data: dict[str, Any], out: set[str]
):
    fleet = make()
    assert drained(fleet, **data) == set()
    assert outs(fleet.balancer) == out
    (found,) = fleet.balancer.drains
    assert (found.owner, found.run, found.reason) == ("operator", fleet.run.id, "fans")
    before = list(fleet.machines["lb1"].commands)
    assert drained(fleet, **data) == set()
    assert fleet.machines["lb1"].commands == before


def test_what_would_empty_an_upstream_changes_no_balancer(
    make: Make, caplog: pytest.LogCaptureFixture
):
    fleet = make()
    for name in ("gpu1", "gpu2"):
        assert drained(fleet, host=name) == set()
    assert drained(fleet, host="gpu3") == {"lb1"}
    assert "nothing else serves s; say --data interrupt=true" in caplog.text
    assert not any(id.startswith("gpu3") for id in outs(fleet.balancer))
    assert drained(fleet, host="gpu3", interrupt=True) == set()
    assert len(outs(fleet.balancer)) == 6


def test_a_service_that_is_never_interrupted_is_not(make: Make, caplog: pytest.LogCaptureFixture):
    fleet = make(services=[{**SERVICE, "interruptible": False}])
    for name in ("gpu1", "gpu2"):
        assert drained(fleet, host=name) == set()
    assert drained(fleet, host="gpu3", interrupt=True) == {"lb1"}
    assert "the inventory forbids" in caplog.text


@pytest.mark.parametrize("stage", [drain, undrain])
def test_a_run_without_balancers_changes_nothing(make: Make, stage: Any):
    with pytest.raises(RefusedError, match="add --limit lb1"):
        drained(make(), stage, limit=["gpu1"], host="gpu1")


def proves(fleet: ServingFleet, name: str, works: bool = True) -> None:
    """Let a host answer as one whose replicas work, or do not."""

    def observed(**_: Any) -> HostObservations:
        replicas = planned_on(fleet.run.fleet, name)
        running = {unit_name(one.name): UnitStatus("active", 42, 0) for one in replicas}
        answer = Completion(ok=works, status=200, seconds=0.1, tokens=1, error="refused")
        return HostObservations(
            completions={one.name: answer for one in replicas},
            streams={one.name: Completion(ok=works, status=200, chunks=9) for one in replicas},
            loads={one.name: LoadResult(40, 0, 2560, 10.0) for one in replicas},
            before=running,
            after=running,
            gpus={one.gpus[0]: GpuUse(21000, (process(one.name),), (90, 95)) for one in replicas},
        )

    answers = {HARDWARE.name: sections(), SUDO: {"errors": "", "end": ""}}
    fleet.machines[name].facts |= {Answers: answers, Observations: observed}


def process(name: str) -> GpuProcess:
    return GpuProcess("42", "engine", 20000, f"0::/system.slice/{unit_name(name)}\n")


@pytest.mark.parametrize("data", [{"host": "gpu1"}, {"replica": "gpu1/s-1"}, {"gpu": "gpu1/0"}])
def test_what_is_undrained_was_proved_on_its_own_host(make: Make, data: dict[str, str]):
    fleet = make()
    before = fleet.balancer
    assert drained(fleet, **data) == set()
    proves(fleet, "gpu1")
    assert drained(fleet, undrain, **data) == set()
    assert fleet.balancer == before
    checked = {one.subject for one in fleet.run.report.checks if one.name == "completion"}
    assert checked == {"s-0", "s-1"} if "host" in data else len(checked) == 1
    # There is nothing left to be proved or changed.
    asked, commands = len(fleet.machines["gpu1"].asked), list(fleet.machines["lb1"].commands)
    assert drained(fleet, undrain, **data) == set()
    assert Observations not in fleet.machines["gpu1"].asked[asked:]
    assert fleet.machines["lb1"].commands == commands


def test_what_does_not_prove_itself_stays_drained(make: Make, caplog: pytest.LogCaptureFixture):
    fleet = make()
    assert drained(fleet, host="gpu1") == set()
    proves(fleet, "gpu1", works=False)
    assert drained(fleet, undrain, host="gpu1") == {"gpu1", "lb1"}
    assert "stays drained: gpu1 did not pass its checks" in caplog.text
    assert drained(fleet, undrain, limit=["lb1", "gpu2"], host="gpu1") == {"lb1"}
    assert "add --limit gpu1" in caplog.text
    assert outs(fleet.balancer) == {"gpu1/s-0", "gpu1/s-1"}


def test_each_drain_ends_alone(make: Make, caplog: pytest.LogCaptureFixture):
    fleet = make()
    assert drained(fleet, host="gpu1") == drained(fleet, replica="gpu1/s-0") == set()
    for name in ("gpu1", "gpu2"):
        proves(fleet, name)
    assert drained(fleet, undrain, host="gpu1") == set()
    assert outs(fleet.balancer) == {"gpu1/s-0"}
    assert drained(fleet, undrain, host="gpu2") == set()
    assert "host gpu2 is not drained by a person; drained are: gpu1/s-0" in caplog.text


def test_what_left_the_inventory_is_undrained_without_a_proof(make: Make):
    fleet = make()
    gone = Drain("gone/*", "operator", "r", "monday", reason="fire")
    fleet.balancer = replace(fleet.balancer, drains=(gone,))
    assert drained(fleet, undrain, host="gone") == set()
    assert fleet.balancer.drains == ()


def test_a_rolling_update_moves_a_drained_replica_and_leaves_it_drained(make: Make):
    fleet = make()
    assert drained(fleet, host="gpu2") == set()
    fleet.run = fleet.begin()
    assert fleet.execute(fleet.run, engines, roll) == set()
    assert "gpu2 restarts" in fleet.history
    assert outs(fleet.balancer) == {"gpu2/s-0", "gpu2/s-1"}
    assert [one.owner for one in fleet.balancer.drains] == ["operator"]


def test_a_deploy_plans_around_quarantined_gpus_and_says_so(make: Make):
    fleet = make()
    fleet.run = fleet.begin()
    fleet.run.quarantines["gpu2"] = (Quarantine("s-1", "Xid 79", indexes=(1,)),)
    state = fleet.states["gpu2"]
    units = {**state.units, "s-1": ReplicaUnit("inactive", "enabled", None)}
    fleet.states["gpu2"] = replace(state, units=units)
    assert fleet.execute(fleet.run, engines, roll) == set()
    tasks = {name: task for name, task in fleet.tasks if name == "gpu2"}
    assert [one["name"] for one in tasks["gpu2"]["replicas"]] == ["s-0"]
    assert tasks["gpu2"]["left_out"] == ["s-1"] and tasks["gpu2"]["retire"] == []
    shown = [line for line in difference(fleet.run) if "left out" in line]
    assert shown == [
        "gpu2/s-1 is left out: s-1 is quarantined: Xid 79; deploys/quarantine.py lifts it"
    ]
    # The committed plan is that of the inventory, with or without it.
    assert fleet.run.fleet == fleet.fleet()


def test_a_drain_is_shown_beside_the_plan(make: Make):
    fleet = make()
    fleet.run = fleet.begin()
    drain = Drain("gpu1/gpu:0", "operator", "r", "monday", reason="fans")
    for name in ("lb1", "lb2"):
        fleet.run.balancers[name] = replace(fleet.balancer, drains=(drain,))
    shown = [line for line in difference(fleet.run) if "drained" in line]
    assert shown == [
        "GPU 0 of gpu1 is drained by a person since monday: fans; deploys/undrain.py ends it"
    ]
