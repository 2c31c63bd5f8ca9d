"""Runs the driver's operations by what a host says; no host is contacted."""

import base64
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyinfra.api import FunctionCommand
from pyinfra.context import ctx_host, ctx_state

from roles.driver import facts as driver_facts
from roles.driver import operations, scripts
from roles.driver.decision import DriverRequest
from roles.driver.facts import DriverReport
from roles.driver.job import Job
from roles.driver.packages import nvidia_repository
from roles.host import HostFile

from .hosts import KEY_FILE, state

STEPS = (
    "possible",
    "finished",
    "rebuilt",
    "repository",
    "installed",
    "nouveau_blocked",
    "held",
    "loaded",
)


MIRROR: dict[str, Any] = {"mirror": "http://m/repos", "mirror_key_file": KEY_FILE}
OFFERED = {
    name: ["580.105.08-1", "580.95.05-1", "570.172.08-1"]
    for name in (
        *("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced"),
        "nvidia-fabricmanager",
    )
} | {"dkms": ["3.0.10-8"], "linux-headers-6.1.0-37-amd64": ["6.1.140-1"]}


class Host:
    """Answers facts by their class, and keeps what was not done and what was asked."""

    def __init__(self, seen: Any, **facts: Any):
        self.name, self.state = "gpu1", State()
        self.facts = {
            DriverReport: seen,
            **{getattr(driver_facts, name): f for name, f in facts.items()},
        }
        self.noops: list[str] = []
        self.asked: list[tuple[Any, dict[str, Any]]] = []
        self.errors: list[str] = []

    def get_fact(self, fact: Any, **arguments: Any) -> Any:
        self.asked.append((fact, arguments))
        return self.facts[fact]

    def noop(self, why: str) -> None:
        self.noops.append(why)

    def log_styled(self, text: str, **_: Any) -> None:
        self.errors.append(text)


class State:
    def __init__(self) -> None:
        self.is_executing = True
        self.failed_hosts: set[Any] = set()


@contextmanager
def on(host: Host) -> Iterator[None]:
    with ctx_host.use(host), ctx_state.use(host.state):  # type: ignore[arg-type]
        yield


def run(host: Host, wanted: DriverRequest, *steps: str) -> list[str]:
    """The commands of all operations, or of some; a failure as what it tells."""
    job, done = Job(wanted), []
    with on(host):
        for step in steps or (*STEPS, "serving"):
            for command in getattr(operations, step)._inner(job=job):
                if isinstance(command, FunctionCommand):
                    assert command.function(host.state, host, *command.args) is False
                    return [*done, *host.errors]
                done.append(script_of(command))
    return done


def script_of(command: Any) -> str:
    """What of a shell command differs from the others: without the part that tells errors."""
    shell, option, script = shlex.split(str(command))
    assert (shell, option) == ("sh", "-c")
    assert subprocess.run(["dash", "-n"], input=script.encode()).returncode == 0
    lines = script.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("run()"))
    return "\n".join(lines[start + 1 :])


def available(offered: Any = None, errors: str = "") -> Any:
    return (OFFERED if offered is None else offered, errors)


APT = f"run {scripts.APT} install --no-install-recommends --allow-downgrades"
REPOSITORY = nvidia_repository(state().system, "http://m/repos", own_key=True)
KNOWN = {
    "files": f"{HostFile(REPOSITORY.path, REPOSITORY.content).state} {REPOSITORY.path}",
    "keys": f"{REPOSITORY.key_path} {base64.b64encode(KEY_FILE.read_bytes()).decode()}",
}
