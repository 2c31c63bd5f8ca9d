"""The pyinfra program itself over hosts that are not there: `python -m tests.render.simulated_run
SCENARIO.json ARGUMENTS…`, the arguments being pyinfra's.

Connections and commands succeed, and every fact is what a host would answer that runs what is
planned and has nothing to do, but for what the scenario says:

    unreachable  hosts to which there is no connection
    lost_gpu     hosts that report one GPU
    old          hosts whose replicas run from older settings, by what else their manifest says
    busy         hosts on which another deploy is at work
    fresh        hosts on which nothing runs
    failing      lines by host that a transaction there fails with
    slow_s       seconds by host that a transaction takes
    hangs        "connect" or "Answers": what takes a minute on gpu1, a connection or a fact
    raises       what raises an error of ours: "announce", the planning of the rolling update,
                 "difference", that of the plan, or "verdicts", the end of the run
"""

import pyinfra_cli.main  # isort: skip  (gevent patches the standard library first)

import json
import sys
import time
from pathlib import Path
from typing import Any

from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import CommandOutput, OutputLine

from roles.balancer import balancer_of
from roles.balancer.certificate import alternative_names
from roles.balancer.completions import ServiceResults
from roles.balancer.deployment import BalancerDeployment
from roles.balancer.found import FoundBalancer
from roles.balancer.routes import server_names
from roles.balancer.state import STATE, dump_state
from roles.checks import Check, of_host
from roles.engine.facts import Installed
from roles.fleet import routes
from roles.hardware import PART as HARDWARE
from roles.hardware import parse_report
from roles.host.paths import unit_name
from roles.host.question import SUDO, Part, parse_answers
from roles.launch import PART as LAUNCH
from roles.launch import LaunchState
from roles.launch.state import ReplicaUnit
from roles.stages import difference, ending
from roles.stages.keys import engine_key_file
from roles.stages.rolling import Rolling
from roles.stages.run import Run
from roles.stages.watchdog import planned_watch
from roles.validation import operations as validation
from roles.validation.observations import (
    Completion,
    GpuProcess,
    GpuUse,
    HostObservations,
    LoadResult,
    UnitStatus,
)
from roles.watchdog import WatchdogState
from roles.watchdog.render import watchdog_files
from tests.unit.driver.hosts import state as driver_state
from tests.unit.hardware.hosts import query, row, sections
from tests.unit.preflight.hosts import output as preflight_output
from tests.unit.tuning.test_steps import PLAIN

SCENARIO: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
MOVED: list[str] = []
"""Hosts on which a transaction succeeded."""


def get_fact(host: Host, fact: type, *_: Any, **arguments: Any) -> Any:
    """What a host answers."""
    hang(host, fact.__name__)
    return ANSWERS[fact.__name__](host, **arguments)


def hang(host: Host, what: str) -> None:
    """Take a minute where the scenario says so."""
    if host.name == "gpu1" and SCENARIO.get("hangs") == what:
        time.sleep(60)


def hardware(host: Host) -> dict[str, str]:
    lost = host.name in SCENARIO.get("lost_gpu", ())
    return sections(query=query(row(0))) if lost else sections()


def answers(host: Host, parts: tuple[Part, ...], **_: Any) -> dict[str, dict[str, str]]:
    """What a host says of the parts that it is asked for."""
    now = str(int(time.time()))
    busy = host.name in SCENARIO.get("busy", ())
    deploys = "412 345 20261130T032409Z-4f2a" if busy else ""
    printed = parse_answers(preflight_output(clock=now, clock_end=now, deploys=deploys))
    printed = {**printed, HARDWARE.name: hardware(host)}
    asked = {part.name for part in parts} | {SUDO}
    if LAUNCH.name in asked:
        printed[LAUNCH.name] = launch_sections(host)
    return {name: sections for name, sections in printed.items() if name in asked}


def launch_sections(host: Host) -> dict[str, str]:
    """What a host says of its replicas, as it says it."""
    state, loading = launched(host), host.name in SCENARIO.get("loading", ())
    units = [
        f"{name} {unit.active} {unit.enabled} {unit.digest} {unit.key_digest or '-'}"
        for name, unit in state.units.items()
    ]
    return {
        "units": "\n".join(units),
        "ready": "\n".join(f"{name} {0 if loading else 200}" for name in state.units),
        "manifest": json.dumps({"schema": 1, "replicas": list(state.manifest.values())}),
        "shared": "\n".join(f"{digest} {path}" for path, digest in state.shared.items()),
        "firewall": "up" if state.firewall else "",
        "legacy": "",
        "end": "",
    }


def launched(host: Host, **_: Any) -> LaunchState:
    """What a host runs: what is planned, or something older."""
    key = engine_key_file(Run.of(host.state))
    if key is not None and not key.exists():
        return LaunchState()
    if host.name in SCENARIO.get("fresh", ()) and host.name not in MOVED:
        return LaunchState()
    launch = Run.of(host.state).launch(host.name)
    entries = {one.name: dict(one.entry) for one in launch.replicas}
    older = SCENARIO.get("old", {}).get(host.name)
    if older is not None and host.name not in MOVED:
        entries = {name: {**one, "digest": "0ld", **older} for name, one in entries.items()}
    key = next((one.key_digest for one in launch.replicas), None)
    units = {
        name: ReplicaUnit("active", "enabled", one["digest"], key) for name, one in entries.items()
    }
    return LaunchState(units, entries, launch.shared, firewall=True)


def standing(host: Host, **_: Any) -> FoundBalancer:
    """A balancer on which everything is as planned."""
    fleet = Run.of(host.state).fleet
    settings, own_routes = fleet.settings.balancer, routes(fleet)
    assert settings is not None
    deployment = BalancerDeployment(balancer_of(settings), settings, own_routes, "earlier")
    address = fleet.host(host.name).address
    files = {file.path: file for file in deployment.files}
    return FoundBalancer(
        state=dump_state(deployment.wanted),
        files={path: file.state for path, file in files.items()},
        packages=frozenset(deployment.balancer.packages),
        certificate=frozenset(
            alternative_names(settings.server_name, *server_names(own_routes), address)
        ),
        has_main_file=True,
        enabled=True,
        active=True,
        loaded=STATE in files,
    )


def completions(host: Host, **_: Any) -> tuple[ServiceResults, ...]:
    fleet = Run.of(host.state).fleet
    broken = {*SCENARIO.get("fresh", ()), *SCENARIO.get("failing", ())}
    down = broken - {*MOVED, *SCENARIO.get("old", ())}
    return tuple(
        ServiceResults(
            route.service,
            frozenset(member.id for member in route.members),
            {member.id: "refused" for member in route.members if member.host in down},
        )
        for route in routes(fleet)
    )


def observed(host: Host, **_: Any) -> HostObservations:
    """What the validation's program sees where every replica works."""
    plans = [plan for _, plan in Run.of(host.state).fleet.services]
    replicas = {
        one.name: (one, plan.model)
        for plan in plans
        for one in plan.replicas
        if one.host == host.name
    }
    units = {unit_name(name): UnitStatus("active", 4200, 0) for name in replicas}
    return HostObservations(
        completions={
            name: Completion(ok=True, status=200, seconds=0.2, tokens=1, model=model)
            for name, (_, model) in replicas.items()
        },
        streams={name: Completion(ok=True, status=200, chunks=9) for name in replicas},
        loads={name: LoadResult(40, 0, 2560, 10.0) for name in replicas},
        before=units,
        after=units,
        gpus={
            gpu: GpuUse(21000, (_process(name),), (90, 95))
            for name, (one, _) in replicas.items()
            for gpu in one.gpus
        },
    )


def _process(name: str) -> GpuProcess:
    return GpuProcess("4242", "engine", 20000, f"0::/system.slice/{unit_name(name)}\n")


def endpoint_checks(endpoint: Any, *_: Any) -> list[Check]:
    names = ("completion", "stream", "wrong key", "replicas")
    from pyinfra import host

    return of_host(
        host.name, [Check(name, endpoint.base_url, "pass", "as it must") for name in names]
    )


def builds(host: Host, **_: Any) -> Installed:
    return Installed(
        tuple(one.version_name for one in Run.of(host.state).fleet.engines_on(host.name))
    )


def watched(host: Host, **_: Any) -> WatchdogState:
    """The watchdog as planned."""
    files = watchdog_files(planned_watch(Run.of(host.state), host.name))
    return WatchdogState({one.path: one.state for one in files}, up=True, user=True)


ANSWERS = {
    "Answers": answers,
    "LaunchFacts": launched,
    "NotServing": lambda host, **_: "",
    "InstalledEngines": builds,
    "BalancerFacts": standing,
    "Completions": completions,
    "Observations": observed,
    "DriverReport": lambda host, **_: driver_state(),
    "HostReport": lambda host, **_: parse_report(hardware(host)),
    "TuningState": lambda host, **_: PLAIN,
    "WatchdogFacts": watched,
    "CudaStart": lambda host, **_: "",
}


def connect(connector: SSHConnector) -> None:
    hang(connector.host, "connect")
    if connector.host.name in SCENARIO.get("unreachable", ()):
        raise ConnectError("Could not connect (timed out)")


def run_shell_command(
    connector: SSHConnector, command: Any, *_: Any, **__: Any
) -> tuple[bool, CommandOutput]:
    name = connector.host.name
    text = command if isinstance(command, str) else command.get_raw_value()
    if not text.startswith("python3 -"):
        return True, CommandOutput([])
    time.sleep(SCENARIO.get("slow_s", {}).get(name, 0))
    if lines := SCENARIO.get("failing", {}).get(name):
        return False, CommandOutput([OutputLine("stderr", line) for line in lines])
    MOVED.append(name)
    return True, CommandOutput([])


def raises(*_: Any) -> Any:
    raise RuntimeError("an error of ours")


BROKEN = {
    "announce": (Rolling, "announce"),
    "difference": (difference, "replica_changes"),
    "verdicts": (ending, "verdicts"),
}


def main() -> None:
    if broken := SCENARIO.get("raises"):
        owner, name = BROKEN[broken]
        setattr(owner, name, raises)
    Host.get_fact = get_fact  # type: ignore[method-assign]
    SSHConnector.connect = connect  # type: ignore[method-assign]
    SSHConnector.disconnect = lambda self: None  # type: ignore[method-assign]
    SSHConnector.run_shell_command = run_shell_command  # type: ignore[method-assign]
    validation._endpoint_checks = endpoint_checks
    sys.argv = ["pyinfra", *sys.argv[2:]]
    pyinfra_cli.main.main()


if __name__ == "__main__":
    main()
