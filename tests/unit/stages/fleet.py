"""A simulated fleet that serves: its hosts move replicas and its balancer drains as they are told.

What a run sends is read from the commands themselves: the task of a transaction, the state of the
balancer.
"""

import ast
import base64
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from roles.balancer import BalancerState, Member, Upstream
from roles.balancer.facts import BalancerFacts
from roles.balancer.found import FoundBalancer
from roles.balancer.kinds import KINDS
from roles.balancer.state import STATE, dump_state, parse_state
from roles.engine.facts import Installed, InstalledEngines
from roles.launch import LaunchState
from roles.launch.facts import LaunchFacts, NotServing
from roles.launch.state import ReplicaUnit
from roles.stages.engines import engines
from roles.stages.roll import roll
from tests.unit.stages.simulation import HOSTS, Simulation

TRANSACTION = "python3 -"
ADDRESSES = {"gpu1": "10.0.0.1", "gpu2": "10.0.0.2", "gpu3": "10.0.0.3"}
NAMES = ("s-0", "s-1")
"""The replicas that each host of HOSTS runs, one on each of its two GPUs."""


def serves(digest: str | None = "0ld", service: str = "s") -> LaunchState:
    """A host that serves a service with two replicas, from folders with that digest; None stands
    for replicas of a deploy that wrote no manifest."""
    names = (f"{service}-0", f"{service}-1")
    entries = {
        name: {
            "name": name, "service": service, "port": 8001 + gpu, "gpus": [gpu], "digest": digest,
        }
        for gpu, name in enumerate(names)
    }  # fmt: skip
    units = {name: ReplicaUnit("active", "enabled", digest, ready=True) for name in names}
    return LaunchState(units, entries if digest else {})


def task_of(program: str) -> dict[str, Any]:
    """The task of a program that is sent to a host."""
    found = re.search(r"^TASK = json\.loads\((.*)\)$", program, re.MULTILINE)
    assert found is not None
    return json.loads(ast.literal_eval(found[1]))


def after(state: LaunchState, task: Mapping[str, Any]) -> LaunchState:
    """The state of a host on which a transaction succeeded."""
    moved = {one["name"]: one["manifest"] for one in task["replicas"]}
    units = {name: unit for name, unit in state.units.items() if name not in task["retire"]}
    units |= {name: ReplicaUnit("active", "enabled", one["digest"]) for name, one in moved.items()}
    manifest = {name: one for name, one in state.manifest.items() if name in units} | moved
    return LaunchState(units, manifest, firewall=True)


class ServingFleet(Simulation):
    """Hosts on which old replicas serve, behind one balancer.

    `history` says in order who was drained, changed and undrained: "gpu1 drained".
    """

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.history: list[str] = []
        self.states = {name: serves() for name in ADDRESSES}
        self.tasks: list[tuple[str, dict[str, Any]]] = []
        members = tuple(
            Member(f"{host}/{name}", host, address, 8001 + number, agent_port=7440, gpus=(number,))
            for host, address in ADDRESSES.items()
            for number, name in enumerate(NAMES)
        )
        self.balancer = BalancerState((Upstream("s", "llm-s", members),))
        # An inventory may lack hosts that serve.
        for name in ADDRESSES.keys() & self.machines.keys():
            machine = self.machines[name]
            machine.facts = {
                InstalledEngines: lambda packages: Installed(self.versions),
                LaunchFacts: lambda name=name: self.found(name),
                NotServing: "",
            }
            machine.done = lambda command, stdin, name=name: self.changed(name, command, stdin)
        self.machines["lb1"].facts = {BalancerFacts: lambda kind: self.standing()}
        self.machines["lb1"].done = lambda command, stdin: self.installed(stdin)

    @property
    def versions(self) -> tuple[str, ...]:
        """All builds are installed."""
        return tuple(
            build.version_name
            for host in self.run.fleet.hosts
            for build in self.run.fleet.engines_on(host.name)
        )

    def found(self, name: str) -> LaunchState:
        """What a host says that it runs; what all its replicas share is as planned."""
        return replace(self.states[name], shared=self.run.launch(name).shared, firewall=True)

    def planned(self, *names: str) -> None:
        """Have these hosts run what is planned already."""
        self.run = self.begin()
        for name in names:
            entries = {one.name: one.entry for one in self.run.launch(name).replicas}
            units = {
                one: ReplicaUnit("active", "enabled", e["digest"]) for one, e in entries.items()
            }
            self.states[name] = LaunchState(units, entries)

    def serves_both(self) -> None:
        """Have each host run one old replica of each of the services s and t."""
        for name in self.states:
            units, manifest = {}, {}
            for gpu, (service, port) in enumerate((("s", 8001), ("t", 8101))):
                entry = {"service": service, "port": port, "gpus": [gpu], "digest": "0ld"}
                units[f"{service}-0"] = ReplicaUnit("active", "enabled", "0ld")
                manifest[f"{service}-0"] = {"name": f"{service}-0", **entry}
            self.states[name] = LaunchState(units, manifest)
        self.balancer = BalancerState(
            tuple(
                Upstream(
                    service,
                    f"llm-{service}",
                    tuple(
                        Member(f"{host}/{service}-0", host, address, port)
                        for host, address in ADDRESSES.items()
                    ),
                )
                for service, port in (("s", 8001), ("t", 8101))
            )
        )

    def changed(self, name: str, command: str, stdin: str) -> None:
        if command.startswith(TRANSACTION):
            task = task_of(stdin)
            self.tasks.append((name, task))
            self.states[name] = after(self.states[name], task)
            self.history.append(f"{name} {'restarts' if task['steps'] else 'emptied'}")

    def standing(self) -> FoundBalancer:
        files = {file.path: file.state for file in KINDS["nginx"].upstream_files(self.balancer)}
        return FoundBalancer(
            state=dump_state(self.balancer),
            files=files,
            packages=frozenset(KINDS["nginx"].packages),
            has_main_file=True,
            enabled=True,
            active=True,
            loaded=True,
        )

    def installed(self, stdin: str) -> None:
        """The balancer loads the files that it was sent."""
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(stdin))) as tar:
            file = tar.extractfile(STATE.lstrip("/"))
            assert file is not None
            new = parse_state(file.read().decode())
        assert new is not None
        before, now = self.drained(self.balancer), self.drained(new)
        self.history += [f"{host} drained" for host in ADDRESSES if host in now - before]
        self.history += [f"{host} undrained" for host in ADDRESSES if host in before - now]
        self.balancer = new

    @staticmethod
    def drained(state: BalancerState) -> set[str]:
        """Hosts of which no replica gets a request."""
        out = {drain.replica for drain in state.drains}
        return {host for host in ADDRESSES if {f"{host}/{name}" for name in NAMES} <= out}

    def update(self, *limit: str) -> set[str]:
        """One run of the stages that change replicas; names of the hosts that failed."""
        self.run = self.begin(limit or None)
        self.history.clear()
        self.tasks.clear()
        return self.execute(self.run, engines, roll)


__all__ = ["ADDRESSES", "HOSTS", "NAMES", "TRANSACTION", "ServingFleet", "serves", "task_of"]
