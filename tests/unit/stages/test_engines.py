"""Engines are installed once each, and replicas start where nothing serves yet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyinfra.context import ctx_host

from roles.engine.facts import Adapters, Installed, InstalledEngines
from roles.host.paths import ADAPTERS
from roles.launch.facts import LaunchFacts
from roles.launch.state import LaunchState, ReplicaUnit
from roles.models import read_adapter
from roles.stages.engines import engines
from roles.stages.run import Run
from tests.adapters import peft
from tests.unit.stages.fleet import serves, task_of
from tests.unit.stages.simulation import HOSTS, SERVICE, Simulation

INSTALL = "sh -c"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Simulation]:
    def made(hosts: dict[str, dict[str, Any]] = HOSTS, **settings: Any) -> Simulation:
        """Fresh machines: nothing is installed, nothing serves."""
        simulation = Simulation(tmp_path, monkeypatch, hosts, **settings)
        for machine in simulation.machines.values():
            machine.facts = {InstalledEngines: Installed(), LaunchFacts: LaunchState()}
        return simulation

    return made


def kinds(simulation: Simulation, name: str) -> list[str]:
    """What was done on a host: installations and starts."""
    commands = simulation.machines[name].commands
    return ["install" if command.startswith(INSTALL) else "start" for command in commands]


def rolling(run: Run) -> list[tuple[str, int, int]]:
    """What is left to the rolling update: hosts, each with how many replicas restart or go."""
    moves = [move for batch in run.rolling.plan().batches for move in batch.moves]
    hosts = dict.fromkeys(host for move in moves for host in move.hosts)
    return [
        (
            host,
            sum(len(move.restarts) for move in moves if host in move.hosts),
            sum(len(move.removals) for move in moves if host in move.hosts),
        )
        for host in hosts
    ]


def test_fresh_hosts_are_installed_and_started_and_balancers_are_left_alone(make: Any):
    simulation = make()
    assert simulation.execute(simulation.begin(), engines) == set()
    assert [kinds(simulation, name) for name in ("gpu1", "gpu3")] == [["install", "start"]] * 2
    assert simulation.machines["lb1"].asked == []


def test_a_host_that_serves_is_left_to_the_rolling_update(make: Any):
    simulation = make()
    simulation.machines["gpu2"].facts[LaunchFacts] = serves()
    run = simulation.begin()
    assert simulation.execute(run, engines) == set()
    assert kinds(simulation, "gpu2") == ["install"]
    assert rolling(run) == [("gpu2", 2, 0)]


def test_a_host_that_fails_stops_no_other(make: Any):
    simulation = make()
    simulation.machines["gpu1"].fails = lambda command: command.startswith(INSTALL)
    assert simulation.execute(simulation.begin(), engines) == {"gpu1"}
    assert kinds(simulation, "gpu1") == []
    assert kinds(simulation, "gpu2") == ["install", "start"]


def cut_short(answer: Any, default: Any) -> Callable[..., Any]:
    """A fact that cannot be read when the run executes: pyinfra fails the host, and goes on in the
    operation with the default."""

    def ask(**_: Any) -> Any:
        this_host = ctx_host.get()
        assert this_host is not None
        if not this_host.state.is_executing:
            return answer
        this_host.state.fail_hosts({this_host})
        return default

    return ask


def test_a_host_of_which_nobody_knows_what_it_runs_is_left_as_it_is(make: Any):
    simulation = make()
    simulation.machines["gpu1"].facts[LaunchFacts] = cut_short(serves(), LaunchState())
    run = simulation.begin()
    assert simulation.execute(run, engines) == {"gpu1"}
    assert kinds(simulation, "gpu1") == ["install"]
    # The rolling update must not take it for a bare one.
    assert run.found["gpu1"].state == serves() and not run.found["gpu1"].fresh


def test_a_host_of_which_nobody_knows_what_is_installed_is_left_as_it_is(make: Any):
    simulation = make()
    simulation.machines["gpu1"].facts[InstalledEngines] = cut_short(Installed(), Installed())
    assert simulation.execute(simulation.begin(), engines) == {"gpu1"}
    assert kinds(simulation, "gpu1") == []
    assert kinds(simulation, "gpu2") == ["install", "start"]


def test_nothing_is_installed_on_a_retired_host(make: Any):
    simulation = make(HOSTS | {"gpu2": {"retired": True}})
    for name in ("gpu1", "gpu2", "gpu3"):
        simulation.machines[name].facts[LaunchFacts] = serves()
    run = simulation.begin()
    assert simulation.execute(run, engines) == set()
    assert [kinds(simulation, name) for name in ("gpu1", "gpu2")] == [["install"], []]
    assert rolling(run) == [("gpu1", 2, 0), ("gpu3", 2, 0), ("gpu2", 0, 2)]


def test_the_last_replica_that_balancers_know_is_not_taken_down(make: Any):
    simulation = make(HOSTS | {"gpu2": {"retired": True}})
    simulation.machines["gpu2"].facts[LaunchFacts] = serves()
    run = simulation.begin()
    assert simulation.execute(run, engines) == set()
    # The other hosts serve since a moment ago, and no balancer sends them requests yet.
    assert rolling(run) == [("gpu2", 0, 1)]
    assert [one.move.replicas for one in run.rolling.plan().skipped] == [("gpu2/s-1",)]


def test_two_builds_are_installed_beside_each_other(make: Any):
    base = {"model": "Qwen/Qwen3-8B", "max_model_len": 4096}
    services = [
        base | {"name": "a"},
        base
        | {
            "name": "b",
            "first_port": 9001,
            "engine": {"vllm": {"requirement": "vllm==0.32.0", "allow_unhashed": True}},
            "route": {"path_prefix": "/b"},
        },
    ]
    simulation = make(services=services)
    assert simulation.execute(simulation.begin(), engines) == set()
    installs = [one for one in simulation.machines["gpu1"].commands if one.startswith(INSTALL)]
    assert ["/vllm-0.33.0-" in one for one in installs] == [True, False]
    assert "vllm==0.32.0" in installs[1]


def test_what_all_replicas_share_is_written_where_that_alone_differs(make: Any):
    simulation = make()
    tasks: list[dict[str, Any]] = []
    machine = simulation.machines["gpu1"]
    machine.done = lambda command, stdin: (
        command.startswith("python3 -") and tasks.append(task_of(stdin))
    )
    run = simulation.begin(["gpu1"])
    replicas = {one.name: one for one in run.launch("gpu1").replicas}
    units = {name: ReplicaUnit("active", "enabled", one.digest) for name, one in replicas.items()}
    manifest = {name: one.entry for name, one in replicas.items()}
    machine.facts[LaunchFacts] = LaunchState(units, manifest)
    assert simulation.execute(run, engines) == set()
    (task,) = tasks
    assert (task["steps"], task["retire"], task["replicas"]) == ([], [], [])
    assert task["firewall"]
    assert rolling(run) == []


def test_each_replica_starts_with_its_own_services_key(make: Any, tmp_path: Path):
    simulation = make()
    started: list[dict[str, Any]] = []
    simulation.machines["gpu1"].done = lambda command, stdin: (
        command.startswith("python3 -") and started.append(task_of(stdin))
    )
    run = simulation.begin()
    assert simulation.execute(run, engines) == set()
    (task,) = started
    (service,) = run.fleet.settings.services
    assert {one["key"] for one in task["replicas"]} == {run.fleet.settings.keys(service).engine}
    assert task["run"] == run.id and task["steps"] == [["s-0", "s-1"]]


def test_adapters_are_copied_once_and_checked_before_a_replica_starts(make: Any, tmp_path: Path):
    folder = peft(tmp_path / "style")
    simulation = make(services=[SERVICE | {"adapters": {"style": str(folder)}}])
    digest = read_adapter(folder).digest
    for name, there in (("gpu1", ()), ("gpu2", (digest,)), ("gpu3", (f".new-{digest}",))):
        simulation.machines[name].facts[Adapters] = there
    assert simulation.execute(simulation.begin(), engines) == set()
    commands = simulation.machines["gpu1"].commands
    assert [one for one in commands if one.startswith("upload")] == [
        f"upload {folder}/{name} {ADAPTERS}/.new-{digest}/{name}"
        for name in ("adapter_config.json", "adapter_model.safetensors")
    ]
    assert "sha256sum --check" in commands[-2] and f"{ADAPTERS}/{digest}" in commands[-2]
    assert [len(simulation.machines[name].commands) for name in ("gpu2", "gpu3")] == [2, 6]


def test_a_service_without_adapters_asks_for_none(make: Any):
    simulation = make()
    simulation.execute(simulation.begin(), engines)
    assert Adapters not in simulation.machines["gpu1"].asked
