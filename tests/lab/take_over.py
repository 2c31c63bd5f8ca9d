"""Takes hosts of commit eaed66b over with today's product, while somebody asks them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import dropwhile
from typing import TYPE_CHECKING

from . import old_fleet

if TYPE_CHECKING:
    from .conftest import Fleet, Run

HOST = "gpu1"
REPLICAS = "/etc/llm/replicas"
DEPLOY = ("--limit", HOST, "--limit", "lb1", "--data", "validate=false")
TIMEOUT_S = 900


@dataclass(frozen=True)
class TakeOver:
    """What was seen: the run, the statuses of requests that had somebody to serve them, and the
    replica that was killed before its turn with the process that came in its place."""

    run: Run
    statuses: list[int]
    killed: str
    folder: str
    command: str


def take_over(lab: Fleet) -> TakeOver:
    """Bring gpu1 and lb1 to the old state, and deploy over it; in the middle the replica whose
    turn is still to come is killed."""
    old_fleet.put_gpu_host(HOST)
    old_fleet.put_balancer("lb1")
    before = lab.engines(HOST)
    assert len(before) == 2 and lab.ask()[0] == 200
    # vLLM's worker looks for work without a pause for a second after each request: one that is
    # asked all the time would keep a whole processor from those that start.
    lab.ssh(HOST, "sudo renice -n 19 -p $(pgrep -x VLLM::Worker)")
    with ThreadPoolExecutor() as pool, lab.asking() as statuses:
        deploy = pool.submit(lab.deploy, *DEPLOY)
        first = _until(deploy, lambda: _moved(lab, list(before)))
        last = next(unit for unit in before if unit != first)
        # Whoever is asked at this moment is lost with it, and nobody is left to serve.
        asked = len(statuses)
        lab.ssh(HOST, f"sudo kill -9 {before[last]}")
        killed = len(statuses)
        pid = _until(deploy, lambda: _restarted(lab, last, before[last]))
        folder = lab.ssh(HOST, f"sudo readlink /proc/{pid}/cwd").strip()
        command = lab.ssh(HOST, f"tr '\\0' ' ' </proc/{pid}/cmdline").strip()
        run = deploy.result()
    served = dropwhile(lambda status: status != 200, statuses[killed:])
    return TakeOver(run, [*statuses[: asked - 1], *served], last, folder, command)


def running_from(lab: Fleet, unit: str) -> str:
    """The working directory of a replica's main process; empty where it has none."""
    pid = f"$(systemctl show -P MainPID {unit})"
    return lab.ssh(HOST, f"sudo readlink /proc/{pid}/cwd || true").strip()


def _moved(lab: Fleet, units: list[str]) -> str | None:
    """The replica that runs from a folder of its own, if one does."""
    return next((unit for unit in units if running_from(lab, unit).startswith(REPLICAS)), None)


def _restarted(lab: Fleet, unit: str, before: str) -> str | None:
    """The main process of a replica once it is another one."""
    pid = lab.ssh(HOST, f"systemctl show -P MainPID {unit}").strip()
    return pid if pid not in ("0", before) else None


def _until(deploy: Future[Run], seen: Callable[[], str | None]) -> str:
    """Ask until there is an answer; a deploy that has ended gives none."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (answer := seen()):
        assert not deploy.done(), deploy.result().text
        assert time.monotonic() < deadline, "did not happen in time"
        # A login takes a tenth of a second of the processors that replicas start on.
        time.sleep(0.5)
    return answer
