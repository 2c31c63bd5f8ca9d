"""A fleet whose hosts are simulated, and pyinfra itself over them: stages run as in a deploy.

A host's facts are given to it, and its commands are kept; one that a test has chosen fails.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pyinfra
import pytest
from pyinfra.api import Config, Inventory, State
from pyinfra.api.operations import run_ops
from pyinfra.api.state import StateStage
from pyinfra.connectors.util import CommandOutput, OutputLine
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state

from roles.declaration import Declaration, DeclaredHost, recorded
from roles.declaration.shape import KEY
from roles.fleet import build
from roles.fleet.checked import CheckedInventory, set_checked
from roles.stages.run import Run

HOSTS: dict[str, dict[str, Any]] = {
    "gpu1": {"gpus": "2x NVIDIA L40S"},
    "gpu2": {"gpus": "2x NVIDIA L40S"},
    "gpu3": {"gpus": "2x NVIDIA L40S"},
    "lb1": {},
}
SERVICE = {"name": "s", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}


class Machine:
    """One simulated host: what it answers by the class of the fact, and what was done on it.

    Where a command `fails`, `last_words` are what it printed, `last_errors` what on standard error.
    """

    def __init__(self, name: str, facts: Mapping[type, Any]):
        self.name = name
        self.facts = dict(facts)
        self.asked: list[type] = []
        self.commands: list[str] = []
        self.fails: Callable[[str], bool] = lambda command: False
        self.last_words: list[str] = []
        self.last_errors: list[str] = []
        self.done: Callable[[str, str], Any] = lambda command, stdin: None

    def get_fact(self, fact: type, **arguments: Any) -> Any:
        self.asked.append(fact)
        answer = self.facts[fact]
        return answer(**arguments) if callable(answer) else answer

    def run(self, command: Any, _stdin: str = "", **_: Any) -> tuple[bool, CommandOutput]:
        text = command if isinstance(command, str) else command.get_raw_value()
        if self.fails(text):
            output = [OutputLine("stdout", line) for line in self.last_words]
            return False, CommandOutput(
                [*output, *(OutputLine("stderr", e) for e in self.last_errors)]
            )
        self.commands.append(text)
        self.done(text, _stdin)
        return True, CommandOutput([])

    def put(self, filename: str, remote_filename: str, *_: Any, **__: Any) -> bool:
        self.commands.append(f"upload {filename} {remote_filename}")
        return True


def _stack() -> list[tuple[FrameType]]:
    frame, found = sys._getframe(1), []
    while frame is not None:
        found.append((frame,))
        frame = frame.f_back
    return found


def _place(frame: FrameType) -> inspect.Traceback:
    return inspect.Traceback(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, [], 0)


class Simulation:
    """One inventory, its machines, and runs of stages over them."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        hosts: Mapping[str, Mapping[str, Any]] = HOSTS,
        **settings: Any,
    ):
        monkeypatch.setattr(pyinfra, "is_cli", True)
        # pyinfra orders operations by the lines that call them; their text only takes time to read.
        monkeypatch.setattr("pyinfra.api.util.stack", _stack)
        monkeypatch.setattr("pyinfra.api.util.getframeinfo", _place)
        key, engine_key = folder / "api.key", folder / "engines.key"
        for file in (key, engine_key):
            file.write_text(file.stem.replace(".", "") * 8)
            file.chmod(0o600)
        self.file = folder / "site.py"
        self.hosts = hosts
        self.settings = {
            "services": [SERVICE],
            "balancer": {"api_key_file": str(key), "engine_key_file": str(engine_key)},
            "interconnect": {"measure": False},
            **settings,
        }
        self.machines = {name: Machine(name, {}) for name in hosts}

    def begin(self, limit: Iterable[str] | None = None, **data: Any) -> Run:
        """A new run over these machines; without `limit` over all."""
        gpu_hosts = [name for name in self.hosts if name.startswith("gpu")]
        names = [(name, self._data(name)) for name in self.hosts]
        inventory = Inventory(
            (names, {KEY: self.settings, **data}),
            gpu_hosts=(gpu_hosts, {}),
            balancers=([name for name in self.hosts if name not in gpu_hosts], {}),
        )
        state = State()
        state.cwd = str(self.file.parent)
        wanted = [inventory.get_host(name) for name in limit] if limit is not None else None
        state.init(inventory, Config(), initial_limit=wanted)
        for host in inventory:
            self._simulate(state, host)
        set_checked(state, CheckedInventory(self.file, self.declaration(), self.fleet()))
        return Run.of(state)

    def execute(self, run: Run, *stages: Callable[[Run], Any]) -> set[str]:
        """Prepare and run stages on every host of the run; names of the hosts that failed."""
        self.prepare(run, *stages)
        with ctx_state.use(run.state), ctx_inventory.use(run.state.inventory):
            run.state.set_stage(StateStage.Execute)
            run_ops(run.state)
        return {host.name for host in run.state.failed_hosts}

    def prepare(self, run: Run, *stages: Callable[[Run], Any]) -> None:
        """Let every host of the run go through stages, without executing anything."""
        state = run.state
        state.set_stage(StateStage.Prepare)
        with ctx_state.use(state), ctx_inventory.use(state.inventory):
            for host in list(state.inventory.get_active_hosts()):
                with ctx_host.use(host), ctx_config.use(state.config.copy()):
                    for stage in stages:
                        stage(run)

    def declaration(self) -> Declaration:
        """What the inventory declares."""
        hosts = {}
        for name, own in self.hosts.items():
            group = "gpu_hosts" if name.startswith("gpu") else "balancers"
            address = f"10.0.0.{len(hosts) + 1}"
            ssh = {"ssh_hostname": address}
            hosts[name] = DeclaredHost(frozenset({group}), own, address, ssh)
        return Declaration("site", self.settings, hosts, recorded(self.file))

    def fleet(self):
        """The fleet as the inventory's check leaves it."""
        return build(self.declaration(), hardware=False)

    def _data(self, name: str) -> dict[str, Any]:
        number = list(self.hosts).index(name) + 1
        return {KEY: dict(self.hosts[name]), "ssh_hostname": f"10.0.0.{number}"}

    def _simulate(self, state: State, host: Any) -> None:
        machine = self.machines[host.name]
        host.get_fact = machine.get_fact
        host.connector.run_shell_command = machine.run
        host.connector.put_file = machine.put
        host.connected = True
        if state.is_host_in_limit(host):
            state.activate_host(host)
