"""Engines that hang on real hosts leave the rotation and come back by themselves."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lab import hosts, network
from tests.lab.conftest import Fleet, wait_until
from tests.lab.test_main_job import UPSTREAM

REPLICA = "qwen2.5-14b-0"
UNIT = f"llm-engine@{REPLICA}.service"
GPU_HOSTS = ("gpu1", "gpu2", "gpu3")
ADDRESSES = {"gpu1": "10.99.0.11", "gpu2": "10.99.0.12", "gpu3": "10.99.0.13"}
# A busy machine may be late; the times themselves are the benchmark's to print.
OUT_S, BACK_S, ERROR_S = 12, 120, 60
# An answer that is longer than the fault takes.
LONG = {"max_tokens": 3000, "stream": True, "ignore_eos": True}


def agent(host: str, question: str) -> str:
    """What the agent port of a host answers, asked on the host itself."""
    command = f"exec 3<>/dev/tcp/127.0.0.1/7440; echo {question} >&3; cat <&3"
    return hosts.ssh(host, f"timeout 5 bash -c '{command}'").stdout.strip()


def state(host: str, replica: str = REPLICA) -> str:
    with suppress(ValueError, KeyError):
        found = {one["name"]: one["state"] for one in json.loads(agent(host, "state"))["replicas"]}
        return found.get(replica, "")
    return ""


def started(host: str, command: str) -> "subprocess.Popen[str]":
    """A command that runs on a host meanwhile."""
    line = network.inside([*hosts.ssh_command(host), command])
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def taken(host: str, port: int = 8001) -> bool:
    """Whether the balancer's host can connect to a replica's port."""
    command = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{ADDRESSES[host]}/{port}'"
    return hosts.ssh("lb1", command).returncode == 0


def signal(fleet: Fleet, host: str, name: str, unit: str = UNIT) -> None:
    """Send a signal to all processes of a replica."""
    fleet.ssh(host, f"sudo systemctl kill -s {name} {unit}")


def counted(fleet: Fleet, host: str) -> dict[str, int]:
    """How often a watchdog did what, over the replicas of its host."""
    text = fleet.ssh(host, "cat /var/lib/llm/metrics/llm.prom")
    counts: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith("llm_watchdog_actions_total{"):
            action = line.partition('action="')[2].partition('"')[0]
            counts[action] = counts.get(action, 0) + int(float(line.split()[-1]))
    return counts


@pytest.fixture
def watched(llama_fleet: Fleet, llama: Path) -> Iterator[Fleet]:
    """The fleet while every replica serves, by its watchdogs; it serves again afterwards."""
    wait_until(lambda: all(all_serve(host) for host in GPU_HOSTS), "replicas that serve")
    yield llama_fleet
    for host in GPU_HOSTS:
        hosts.ssh(host, "sudo systemctl kill -s CONT 'llm-engine@*.service'")
    wait_until(lambda: all(all_serve(host) for host in GPU_HOSTS), "replicas that serve again")


def all_serve(host: str) -> bool:
    with suppress(ValueError, KeyError):
        replicas = json.loads(agent(host, "state"))["replicas"]
        return bool(replicas) and {one["state"] for one in replicas} == {"serving"}
    return False


@contextmanager
def stream(fleet: Fleet, host: str) -> Iterator["subprocess.Popen[str]"]:
    """A long answer of a replica, asked by the balancer's host, which begins to come."""
    folder = f"/etc/llm/replicas/{REPLICA}/current"
    key = fleet.ssh(host, f"sudo head -n 1 {folder}/keys").strip()
    message = {"role": "user", "content": "hi"}
    body = json.dumps({"model": "Qwen/Qwen2.5-14B-Instruct", "messages": [message], **LONG})
    url = f"http://{ADDRESSES[host]}:8001/v1/chat/completions"
    command = f"curl -sN -m 300 -H 'Authorization: Bearer {key}' -d '{body}' {url}"
    process = started("lb1", command)
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
    wait_until(lambda: not taken("gpu1"), "a closed port", OUT_S)
    assert agent("gpu1", REPLICA) == "down"
    assert [watched.ask(timeout_s=20)[0] for _ in range(8)] == [200] * 8
    wait_until(lambda: state("gpu1") == "serving", "a replica that serves", BACK_S)
    print(f"idle: serves again after {time.monotonic() - begin:.1f} s")
    assert taken("gpu1")
    after = {host: watched.engines(host) for host in GPU_HOSTS}
    assert after["gpu1"].pop(UNIT) != before["gpu1"].pop(UNIT)
    assert after == before
    evidence = watched.ssh("gpu1", f"sudo sh -c 'cat /var/lib/llm/evidence/*-{REPLICA}.txt'")
    assert "T (stopped)" in evidence


def test_a_busy_engine_that_stops_ends_its_requests(watched: Fleet):
    with stream(watched, "gpu1") as asked:
        begin = time.monotonic()
        signal(watched, "gpu1", "STOP")
        wait_until(lambda: not taken("gpu1"), "a closed port", OUT_S)
        assert asked.wait(ERROR_S) != 0
        assert time.monotonic() - begin < ERROR_S
    wait_until(lambda: state("gpu1") == "serving", "a replica that serves", BACK_S)


def test_an_engine_that_goes_on_comes_back_without_a_restart(watched: Fleet):
    before = watched.engines("gpu1")
    signal(watched, "gpu1", "STOP")
    wait_until(lambda: not taken("gpu1"), "a closed port", OUT_S)
    signal(watched, "gpu1", "CONT")
    wait_until(lambda: state("gpu1") == "serving" and taken("gpu1"), "it is in again", 30)
    assert watched.engines("gpu1") == before


def test_an_engine_that_dies_is_systemds(watched: Fleet):
    before = counted(watched, "gpu1").get("restart", 0)
    pid = watched.engines("gpu1")[UNIT]
    signal(watched, "gpu1", "KILL")
    assert [watched.ask()[0] for _ in range(8)] == [200] * 8
    wait_until(lambda: watched.engines("gpu1").get(UNIT, pid) != pid, "another process")
    wait_until(lambda: state("gpu1") == "serving", "a replica that serves", BACK_S)
    assert counted(watched, "gpu1").get("restart", 0) == before


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
    for _, id, is_in in sorted(moves(watched, since)):
        (out.discard if is_in else out.add)(id)
        assert len(out) < len(UPSTREAM), moves(watched, since)
    after = {host: watched.engines(host) for host in GPU_HOSTS}
    assert all(after[host][unit] != pid for host in before for unit, pid in before[host].items())


def moves(fleet: Fleet, since: int) -> list[tuple[float, str, bool]]:
    """When which replica left the rotation, or was found to serve again, by the watchdogs' logs."""
    read = f"sudo journalctl -u llm-watchdog -o short-unix --no-pager --since @{since}"
    move = re.compile(r"^([0-9.]+) \S+ \S+ (\S+): (leaves the rotation$|\S+ -> serving)", re.M)
    return [
        (float(stamp), f"{host}/{name}", "serving" in what)
        for host in GPU_HOSTS
        for stamp, name, what in move.findall(fleet.ssh(host, read))
    ]


def replicas(host: str) -> list[dict[str, Any]]:
    with suppress(ValueError, KeyError):
        return json.loads(agent(host, "state"))["replicas"]
    return []


def test_a_deploy_that_holds_the_host_pauses_the_watchdog(watched: Fleet):
    hold = "sudo flock /var/lib/llm/lock sleep 30"
    before = watched.engines("gpu1")
    with started("gpu1", hold) as holder:
        held = "grep -q '^llm_watchdog_held 1' /var/lib/llm/metrics/llm.prom"
        wait_until(lambda: hosts.ssh("gpu1", held).returncode == 0, "a watchdog that pauses", 20)
        signal(watched, "gpu1", "STOP")
        time.sleep(15)
        assert taken("gpu1") and watched.engines("gpu1") == before
        assert holder.wait(60) == 0
    wait_until(lambda: not taken("gpu1"), "a closed port", OUT_S + 5)


def test_a_dead_watchdog_keeps_nobody_out(watched: Fleet):
    signal(watched, "gpu1", "STOP")
    wait_until(lambda: not taken("gpu1"), "a closed port", OUT_S)
    watched.ssh("gpu1", "sudo systemctl stop llm-watchdog.service")
    try:
        signal(watched, "gpu1", "CONT")
        wait_until(lambda: taken("gpu1"), "an open port", 75)
    finally:
        watched.ssh("gpu1", "sudo systemctl start llm-watchdog.service")


def test_a_second_run_changes_nothing(watched: Fleet, llama: Path):
    run = watched.deploy("--data", "validate=false", inventory=llama)
    assert (run.status, run.changes) == (0, 0), run.text
