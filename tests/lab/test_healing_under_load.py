"""Faults under a steady load of plain and streamed requests, behind each balancer's program.

The tests hold states and counts; `make soak` prints the times.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import hosts, slow_disk
from tests.lab.conftest import wait_until
from tests.lab.load import Answer, Load, loaded
from tests.lab.services import BALANCER, FAST, Services
from tests.lab.watchdogs import agent, all_serve, counted, moves, replicas, state, taken

pytestmark = pytest.mark.soak

GPUS = {"gpu5": "2x NVIDIA L40S", "gpu6": "4x NVIDIA A10G"}
REPLICA, PORT = "alpha-0", 8001
UNIT = f"llm-engine@{REPLICA}.service"
# What a service promises; a busy machine may need some more to start an engine.
OUT_S, BACK_S, ERROR_S, POWER_S = 12, 90, 60, 10
# More than all slots of all replicas take, so that a queue stands.
WORKERS, SATURATED_S = 96, 120


class Alpha(Services):
    """One service over two hosts."""

    def declared(self) -> dict[str, Any]:
        return self.service("alpha", {"path_prefix": "/alpha"})

    def behind(self, program: str) -> Path:
        return self.inventory([self.declared()], GPUS, balancer={"program": program})

    @property
    def url(self) -> str:
        return f"https://{hosts.host(BALANCER).address}/alpha"

    def serves(self) -> bool:
        return all(all_serve(host) for host in GPUS)


@dataclass(frozen=True)
class Behind:
    """The service behind a balancer's program."""

    alpha: Alpha
    program: str

    @property
    def inventory(self) -> Path:
        return self.alpha.behind(self.program)

    def deploy(self) -> None:
        self.alpha.apply(self.inventory, *FAST)

    def loaded(self, workers: int = 4, tokens: int = 200, words: int = 3) -> Any:
        key = self.alpha.key("alpha-client")
        return loaded(self.alpha.url, key, "lab/alpha", workers, tokens, words)

    def print(self, what: str, value: str) -> None:
        print(f"\n{self.program:8} {what}: {value}")

    def counts(self) -> Counter[str]:
        """What the watchdogs have done, over both hosts."""
        return counted(self.alpha, "gpu5") + counted(self.alpha, "gpu6")


@pytest.fixture(scope="module")
def booted(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alpha]:
    with hosts.booted(BALANCER, *GPUS):
        yield Alpha(tmp_path_factory.mktemp("healing"))


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def program(booted: Alpha, request: pytest.FixtureRequest) -> Behind:
    made = Behind(booted, request.param)
    made.deploy()
    return made


@pytest.fixture
def behind(program: Behind) -> Iterator[Behind]:
    """The service while each replica serves; each serves again afterwards."""
    wait_until(program.alpha.serves, "replicas that serve", 180)
    yield program
    for host in GPUS:
        hosts.ssh(host, "sudo systemctl kill -s CONT 'llm-engine@*.service'")
    wait_until(program.alpha.serves, "replicas that serve again", 180)


def signal(behind: Behind, host: str, name: str) -> float:
    """Send a signal to all processes of a replica; returns when, by the clock of this machine."""
    # The way there may take seconds on a busy machine.
    line = f"sudo sh -c 'date +%s.%N; systemctl kill -s {name} {UNIT}'"
    return float(behind.alpha.ssh(host, line))


def reached(answers: list[Answer], fault_s: float, out_s: float) -> list[Answer]:
    """Requests that may have been at the replica when it failed, or came until it was out."""
    return [one for one in answers if one.end_s >= fault_s and one.begin_s <= out_s]


def healed(behind: Behind, fault: Callable[[], float], load: Load, what: str) -> None:
    """A fault of gpu5's first replica: it is out in time, serves again, and its requests end."""
    fault_s = fault()
    wait_until(lambda: not taken("gpu5", PORT, BALANCER), "a closed port", OUT_S + 5)
    out_s = time.time()
    wait_until(lambda: state("gpu5", REPLICA) == "serving", "a replica that serves", BACK_S)
    behind.print(what, f"out {out_s - fault_s:.1f} s, serves again {time.time() - fault_s:.1f} s")
    assert taken("gpu5", PORT, BALANCER)
    assert out_s - fault_s <= OUT_S
    failed = load.failed()
    assert len(failed) <= len(reached(load.answers, fault_s, out_s)), failed
    # Who comes after it is out meets only replicas that serve.
    assert not [one for one in failed if one.begin_s > out_s], failed
    # Balancers ask another replica where no answer had begun.
    slowest_s = max(one.end_s - max(one.begin_s, fault_s) for one in load.answers)
    assert slowest_s <= ERROR_S, load.answers
    behind.print(what, f"{len(failed)} requests failed, the slowest took {slowest_s:.1f} s")


def test_a_busy_engine_that_stops(behind: Behind):
    with behind.loaded() as load:
        wait_until(lambda: len(load.answers) > 12, "answers", 60)
        healed(behind, lambda: signal(behind, "gpu5", "STOP"), load, "SIGSTOP while busy")


def test_an_idle_engine_that_stops(behind: Behind):
    begin_s = signal(behind, "gpu5", "STOP")
    wait_until(lambda: not taken("gpu5", PORT, BALANCER), "a closed port", OUT_S + 5)
    out_s = time.time()
    assert agent("gpu5", REPLICA) == "down"
    with behind.loaded() as load:
        wait_until(lambda: state("gpu5", REPLICA) == "serving", "a replica that serves", BACK_S)
    assert not load.failed()
    behind.print(
        "SIGSTOP while idle",
        f"out {out_s - begin_s:.1f} s, serves again {time.time() - begin_s:.1f} s",
    )
    assert out_s - begin_s <= OUT_S


def test_an_engine_that_is_killed(behind: Behind):
    before = behind.counts()["restart"]
    with behind.loaded() as load:
        wait_until(lambda: len(load.answers) > 12, "answers", 60)
        pid = behind.alpha.replicas("gpu5")[REPLICA].pid
        fault_s = signal(behind, "gpu5", "KILL")

        def replaced() -> bool:
            now = behind.alpha.replicas("gpu5").get(REPLICA)
            return now is not None and now.pid != pid and state("gpu5", REPLICA) == "serving"

        wait_until(replaced, "another process that serves", BACK_S)
        behind.print("kill -9", f"serves again after {time.time() - fault_s:.1f} s")
    # Only what was under way on it: nobody waits for systemd.
    assert all(one.begin_s <= fault_s + 1 for one in load.failed()), load.failed()
    behind.print("kill -9", f"{len(load.failed())} requests failed")
    assert behind.counts()["restart"] == before


def test_a_host_without_power(behind: Behind):
    with behind.loaded() as load:
        wait_until(lambda: len(load.answers) > 12, "answers", 60)
        fault_s = time.time()
        hosts.power_off("gpu6")
        try:
            time.sleep(2 * POWER_S)
            # Also one that waits since the fault would be here now.
            late = [one for one in load.since(fault_s) if one.end_s - one.begin_s > POWER_S]
        finally:
            hosts.power_on("gpu6")
        wait_until(behind.alpha.serves, "the host's replicas", 180)
        behind.print("power loss", f"serves again {time.time() - fault_s:.1f} s after it")
    failed = load.failed()
    last_s = max((one.begin_s - fault_s for one in failed), default=0.0)
    behind.print(
        "power loss", f"{len(failed)} requests failed, the last began {last_s:.1f} s after"
    )
    assert last_s < POWER_S and not late, (failed, late)


def test_all_engines_hang_at_once(behind: Behind):
    since, before = int(time.time()), behind.counts()
    for host in GPUS:
        hosts.ssh(host, "sudo systemctl kill -s STOP 'llm-engine@*.service'")
    begin_s, most = time.time(), 0
    wait_until(lambda: not behind.alpha.serves(), "engines that are found to hang", 30)
    while not behind.alpha.serves():
        assert time.time() < begin_s + 400, [agent(host, "state") for host in GPUS]
        shown = [one["state"] for host in GPUS for one in replicas(host)]
        most = max(most, shown.count("restarting"))
        time.sleep(1)
    behind.print("all hang", f"all serve again after {time.time() - begin_s:.1f} s")
    assert most == 1
    out: set[str] = set()
    count = sum(len(replicas(host)) for host in GPUS)
    for _, id, is_in in sorted(moves(behind.alpha, GPUS, since)):
        (out.discard if is_in else out.add)(id)
        assert len(out) < count
    assert behind.counts()["restart"] - before["restart"] == count
    log = "".join(
        behind.alpha.ssh(host, f"sudo journalctl -u llm-watchdog -o cat --since @{since}")
        for host in GPUS
    )
    assert "its restart waits: " in log


def test_a_full_queue_long_prompts_and_a_paused_disk_restart_nobody(behind: Behind):
    before, alpha = behind.counts(), behind.alpha
    with slow_disk.own_disk("gpu5", "/var/lib/llm"):
        # What it has open is on the disk below.
        alpha.ssh("gpu5", "sudo systemctl restart llm-watchdog.service")
        with behind.loaded(WORKERS, tokens=256, words=100) as load:
            end_s = time.time() + SATURATED_S
            while time.time() < end_s:
                with slow_disk.paused("gpu5"):
                    time.sleep(15)
                time.sleep(5)
        shown = alpha.ssh("gpu5", "cat /var/lib/llm/metrics/llm.prom")
        assert "llm_watchdog_actions_total" not in shown, shown
    alpha.ssh("gpu5", "sudo systemctl restart llm-watchdog.service")
    assert behind.counts()["restart"] == before["restart"]
    assert {one.status for one in load.failed()} <= {429, 503}, load.failed()
    behind.print("saturation", f"{len(load.answers)} requests, 0 restarts")


def test_a_deploy_during_a_fault_and_a_fault_during_a_deploy(behind: Behind):
    restarts = behind.counts()["restart"]
    with behind.loaded() as load:
        wait_until(lambda: len(load.answers) > 12, "answers", 60)
        signal(behind, "gpu5", "STOP")
        behind.deploy()
        wait_until(behind.alpha.serves, "replicas that serve", 180)
        run = behind.alpha.start(behind.inventory, "deploys/llm.py", "-y", *FAST)
        wait_until(lambda: any(one["held"] for one in replicas("gpu5")), "a deploy that holds", 120)
        signal(behind, "gpu5", "STOP")
        text, _ = run.communicate(timeout=600)
        wait_until(behind.alpha.serves, "replicas that serve", 180)
    behind.print("deploy and fault", f"status {run.returncode}, {len(load.failed())} failed")
    # Each fault needs one restart: of the watchdog, or of the deploy that found it.
    assert behind.counts()["restart"] - restarts <= 2, text
