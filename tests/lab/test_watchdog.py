"""Engines that hang on real hosts leave the rotation and come back by themselves."""

import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import hosts, network
from tests.lab.conftest import Fleet, wait_until
from tests.lab.test_main_job import UPSTREAM
from tests.lab.watchdogs import agent, all_serve, counted, moves, replicas, state, taken

REPLICA = "qwen2.5-14b-0"
UNIT = f"llm-engine@{REPLICA}.service"
GPU_HOSTS = ("gpu1", "gpu2", "gpu3")
# A busy machine may be late; the times themselves are the benchmark's to print.
OUT_S, BACK_S, ERROR_S = 12, 120, 60
# An answer that is longer than the fault takes.
LONG = {"max_tokens": 3000, "stream": True, "ignore_eos": True}


def started(host: str, command: str) -> "subprocess.Popen[str]":
    """A command that runs on a host meanwhile."""
    line = network.inside([*hosts.ssh_command(host), command])
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def signal(fleet: Fleet, host: str, name: str, unit: str = UNIT) -> None:
    """Send a signal to all processes of a replica."""
    fleet.ssh(host, f"sudo systemctl kill -s {name} {unit}")


@pytest.fixture
def watched(llama_fleet: Fleet, llama: Path) -> Iterator[Fleet]:
    """The fleet while every replica serves, by its watchdogs; it serves again afterwards."""
    wait_until(lambda: all(all_serve(host) for host in GPU_HOSTS), "replicas that serve")
    yield llama_fleet
    for host in GPU_HOSTS:
        hosts.ssh(host, "sudo systemctl kill -s CONT 'llm-engine@*.service'")
    wait_until(lambda: all(all_serve(host) for host in GPU_HOSTS), "replicas that serve again")


@contextmanager
def stream(fleet: Fleet, host: str) -> Iterator["subprocess.Popen[str]"]:
    """A long answer of a replica, asked by the balancer's host, which begins to come."""
    folder = f"/etc/llm/replicas/{REPLICA}/current"
    key = fleet.ssh(host, f"sudo head -n 1 {folder}/keys").strip()
    message = {"role": "user", "content": "hi"}
    body = json.dumps({"model": "Qwen/Qwen2.5-14B-Instruct", "messages": [message], **LONG})
    url = f"http://{hosts.host(host).address}:8001/v1/chat/completions"
    asked = f"curl -sN -m 300 -H 'Authorization: Bearer {key}' -d '{body}' {url}"
    # All of it would fill the pipe to here, and curl would wait for that.
    command = f"{asked} | {{ head -n 1; cat >/dev/null; }}"
    process = started("lb1", f"bash -o pipefail -c {shlex.quote(command)}")
    try:
        assert process.stdout is not None and process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


def test_an_idle_engine_that_stops(watched: Fleet):
    before = {host: watched.engines(host) for host in GPU_HOSTS}
    begin = time.monotonic()
    signal(watched, "gpu1", "STOP")
    wait_until(lambda: not taken("gpu1", 8001), "a closed port", OUT_S)
    assert agent("gpu1", REPLICA) == "down"
    assert [watched.ask(timeout_s=20)[0] for _ in range(8)] == [200] * 8
    wait_until(lambda: state("gpu1", REPLICA) == "serving", "a replica that serves", BACK_S)
    print(f"idle: serves again after {time.monotonic() - begin:.1f} s")
    assert taken("gpu1", 8001)
    after = {host: watched.engines(host) for host in GPU_HOSTS}
    assert after["gpu1"].pop(UNIT) != before["gpu1"].pop(UNIT)
    assert after == before
    evidence = watched.ssh("gpu1", f"sudo sh -c 'cat /var/lib/llm/evidence/*-{REPLICA}.txt'")
    assert "T (stopped)" in evidence


def test_a_busy_engine_that_stops_ends_its_requests(watched: Fleet):
    with stream(watched, "gpu1") as asked:
        begin = time.monotonic()
        signal(watched, "gpu1", "STOP")
        wait_until(lambda: not taken("gpu1", 8001), "a closed port", OUT_S)
        assert asked.wait(ERROR_S) != 0
        assert time.monotonic() - begin < ERROR_S
    wait_until(lambda: state("gpu1", REPLICA) == "serving", "a replica that serves", BACK_S)


def test_an_engine_that_goes_on_comes_back_without_a_restart(watched: Fleet):
    before = watched.engines("gpu1")
    signal(watched, "gpu1", "STOP")
    wait_until(lambda: not taken("gpu1", 8001), "a closed port", OUT_S)
    signal(watched, "gpu1", "CONT")
    wait_until(
        lambda: state("gpu1", REPLICA) == "serving" and taken("gpu1", 8001), "it is in again", 30
    )
    assert watched.engines("gpu1") == before


def test_an_engine_that_dies_is_systemds(watched: Fleet):
    before = counted(watched, "gpu1")["restart"]
    pid = watched.engines("gpu1")[UNIT]
    signal(watched, "gpu1", "KILL")
    assert [watched.ask()[0] for _ in range(8)] == [200] * 8
    wait_until(lambda: watched.engines("gpu1").get(UNIT, pid) != pid, "another process")
    wait_until(lambda: state("gpu1", REPLICA) == "serving", "a replica that serves", BACK_S)
    assert counted(watched, "gpu1")["restart"] == before


def test_when_all_hang_the_last_one_stays_in_and_they_restart_one_after_the_other(watched: Fleet):
    before, since = {host: watched.engines(host) for host in GPU_HOSTS}, int(time.time())
    for host in GPU_HOSTS:
        for unit in before[host]:
            signal(watched, host, "STOP", unit)
    wait_until(lambda: not all(map(all_serve, GPU_HOSTS)), "engines that are found to hang", 30)
    end = time.monotonic() + 300
    restarting: list[int] = []
    while not all(all_serve(host) for host in GPU_HOSTS):
        assert time.monotonic() < end, [agent(host, "state") for host in GPU_HOSTS]
        states = [one["state"] for host in GPU_HOSTS for one in replicas(host)]
        restarting.append(states.count("restarting"))
        time.sleep(1)
    assert max(restarting) == 1
    out: set[str] = set()
    for _, id, is_in in sorted(moves(watched, GPU_HOSTS, since)):
        (out.discard if is_in else out.add)(id)
        assert len(out) < len(UPSTREAM), moves(watched, GPU_HOSTS, since)
    after = {host: watched.engines(host) for host in GPU_HOSTS}
    assert all(after[host][unit] != pid for host in before for unit, pid in before[host].items())


def test_a_deploy_that_holds_the_host_pauses_the_watchdog(watched: Fleet):
    hold = "sudo flock /var/lib/llm/lock sleep 30"
    before = watched.engines("gpu1")
    with started("gpu1", hold) as holder:
        held = "grep -q '^llm_watchdog_held 1' /var/lib/llm/metrics/llm.prom"
        wait_until(lambda: hosts.ssh("gpu1", held).returncode == 0, "a watchdog that pauses", 20)
        signal(watched, "gpu1", "STOP")
        time.sleep(15)
        assert taken("gpu1", 8001) and watched.engines("gpu1") == before
        assert holder.wait(60) == 0
    wait_until(lambda: not taken("gpu1", 8001), "a closed port", OUT_S + 5)


def test_a_dead_watchdog_keeps_nobody_out(watched: Fleet):
    signal(watched, "gpu1", "STOP")
    wait_until(lambda: not taken("gpu1", 8001), "a closed port", OUT_S)
    watched.ssh("gpu1", "sudo systemctl stop llm-watchdog.service")
    try:
        signal(watched, "gpu1", "CONT")
        wait_until(lambda: taken("gpu1", 8001), "an open port", 75)
    finally:
        watched.ssh("gpu1", "sudo systemctl start llm-watchdog.service")


def test_a_second_run_changes_nothing(watched: Fleet, llama: Path):
    run = watched.deploy("--data", "validate=false", inventory=llama)
    assert (run.status, run.changes) == (0, 0), run.text
