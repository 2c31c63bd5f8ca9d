"""Drains by a person over real hosts; deploys that meet, and a deploy around a quarantine."""

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import hosts
from tests.lab.conftest import Fleet, Run, wait_until
from tests.lab.test_main_job import UPSTREAM

FAST = ("--data", "validate=false")
GPU_HOSTS = ("gpu1", "gpu2", "gpu3")
LOCK = "/run/llm-deploy.lock"
OF_GPU1 = {"10.99.0.11:8001", "10.99.0.11:8002"}


def person(fleet: Fleet, inventory: Path, deploy: str, **data: Any) -> Run:
    words = [word for name, value in data.items() for word in ("--data", f"{name}={value}")]
    return fleet.pyinfra(inventory, f"deploys/{deploy}.py", "-y", *words)


def out(fleet: Fleet) -> set[str]:
    """The members of the upstream that get no requests."""
    return {address for address, gets in fleet.upstream().items() if not gets}


@pytest.fixture
def whole(llama_fleet: Fleet, llama: Path) -> Iterator[Fleet]:
    """The fleet while nothing is drained; nothing is, afterwards."""
    assert llama_fleet.upstream() == UPSTREAM
    yield llama_fleet
    state = llama_fleet.ssh("lb1", "cat /etc/llm/balancer/state.json")
    for target in set(re.findall(r'"replica": "([^"]+)",\s+"owner": "operator"', state)):
        kind = "host" if target.endswith("/*") else "gpu" if "/gpu:" in target else "replica"
        value = target.removesuffix("/*").replace("/gpu:", "/")
        run = person(llama_fleet, llama, "undrain", **{kind: value})
        assert run.status == 0, run.text
    assert llama_fleet.upstream() == UPSTREAM


@pytest.mark.parametrize(
    ("data", "drained"),
    [
        ({"host": "gpu1"}, OF_GPU1),
        ({"replica": "gpu3/qwen2.5-14b-1"}, {"10.99.0.13:8002"}),
        ({"gpu": "gpu1/1"}, {"10.99.0.11:8002"}),
    ],
)
def test_a_drain_loses_no_request_and_lasts_until_it_is_undrained(
    whole: Fleet, llama: Path, data: dict[str, str], drained: set[str]
):
    before = {host: whole.engines(host) for host in GPU_HOSTS}
    with whole.asking() as statuses:
        run = person(whole, llama, "drain", **data, reason="fans")
        assert run.status == 0, run.text
        assert out(whole) == drained
        again = person(whole, llama, "drain", **data, reason="fans")
        assert (again.status, again.changes) == (0, 0), again.text
        # A deploy keeps it, and says so; and so does a look at the fleet.
        deployed = whole.deploy(*FAST, inventory=llama)
        assert (deployed.status, deployed.changes) == (0, 0), deployed.text
        assert out(whole) == drained
        for text in (deployed.text, person(whole, llama, "status").text):
            assert "is drained by a person since" in text and "fans" in text, text
        back = person(whole, llama, "undrain", **data)
        assert back.status == 0, back.text
        assert out(whole) == set()
        nothing = person(whole, llama, "undrain", **data)
        assert (nothing.status, nothing.changes) == (0, 0), nothing.text
    assert set(statuses) == {200}
    assert {host: whole.engines(host) for host in GPU_HOSTS} == before


def test_a_drained_replica_that_a_deploy_starts_stays_out(whole: Fleet, llama: Path):
    replica = "llm-engine@qwen2.5-14b-0.service"
    assert person(whole, llama, "drain", replica="gpu1/qwen2.5-14b-0", reason="x").status == 0
    whole.ssh("gpu1", f"sudo systemctl stop {replica}")
    # It does not serve, so nothing proves it.
    run = person(whole, llama, "undrain", replica="gpu1/qwen2.5-14b-0")
    assert run.status == 1 and "stays drained" in run.text, run.text
    run = whole.deploy(*FAST, inventory=llama)
    assert run.status == 0, run.text
    assert replica in whole.engines("gpu1")
    assert out(whole) == {"10.99.0.11:8001"}


def test_no_upstream_becomes_empty_unless_that_is_said(whole: Fleet, llama: Path):
    for host in ("gpu1", "gpu2"):
        assert person(whole, llama, "drain", host=host, reason="x").status == 0
    run = person(whole, llama, "drain", host="gpu3", reason="x")
    assert run.status == 1 and "say --data interrupt=true" in run.text, run.text
    assert whole.ask()[0] == 200
    assert person(whole, llama, "drain", host="gpu3", reason="x", interrupt="true").status == 0
    assert out(whole) == UPSTREAM.keys()
    assert whole.ask()[0] == 502


def held(host: str) -> bool:
    return hosts.ssh(host, f"sudo flock -n {LOCK} true").returncode != 0


def killed(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_of_two_deploys_the_second_is_refused_with_the_first_ones_id(whole: Fleet, llama: Path):
    # Both have asked the hosts by the time that one of them holds them.
    with (
        whole.start(llama, "deploys/llm.py", "-y") as first,
        whole.start(llama, "deploys/llm.py", "-y", *FAST) as second,
    ):
        texts = [one.communicate(timeout=600)[0] for one in (first, second)]
    refused = [text for text in texts if "at work on this host" in text]
    assert refused, texts
    for text in refused:
        assert re.search(r"run \d{8}T\d{6}Z-[0-9a-f]{4}", text), text
    assert whole.deploy(*FAST, inventory=llama).changes == 0


def test_a_run_that_is_killed_lets_its_hosts_go(whole: Fleet, llama: Path):
    process = whole.start(llama, "deploys/llm.py", "-y")
    try:
        wait_until(lambda: held("gpu1") and held("lb1"), "a deploy that holds its hosts", 120)
        # Otherwise it could be at its end before the other one begins.
        process.send_signal(signal.SIGSTOP)
        whole.ssh("gpu1", "grep -q '^llm_watchdog_held 1' /var/lib/llm/metrics/llm.prom || sleep 5")
        assert "llm_watchdog_held 1" in whole.ssh("gpu1", "cat /var/lib/llm/metrics/llm.prom")
        run = whole.deploy(*FAST, inventory=llama)
        assert run.status == 1 and "at work on this host" in run.text, run.text
    finally:
        killed(process)
    wait_until(lambda: not held("gpu1") and not held("lb1"), "hosts that are free", 20)
    run = whole.deploy(*FAST, inventory=llama)
    assert (run.status, run.changes) == (0, 0), run.text


@pytest.mark.soak
def test_a_host_whose_cable_is_pulled_is_free_once_its_lease_ends(whole: Fleet, llama: Path):
    process = whole.start(llama, "deploys/llm.py", "-y")
    try:
        wait_until(lambda: held("gpu3"), "a deploy that holds its hosts", 120)
        hosts.cable("gpu3", "down")
        killed(process)
    finally:
        hosts.cable("gpu3", "up")
    begin = time.monotonic()
    wait_until(lambda: not held("gpu3"), "a host that is free", 240)
    print(f"free after {time.monotonic() - begin:.0f} s")
    assert whole.deploy(*FAST, inventory=llama).status == 0


def test_a_deploy_plans_around_a_quarantined_replica(whole: Fleet, llama: Path):
    name, folder = "qwen2.5-14b-1", "/var/lib/llm/quarantine"
    about = '{"reason": "Xid 79", "date": "monday", "gpus": [1], "gpu_names": ["1 NVIDIA L40S"]}'
    whole.ssh("gpu1", f"sudo install -d {folder}; echo '{about}' | sudo tee {folder}/{name}.json")
    whole.ssh("gpu1", f"sudo systemctl stop llm-engine@{name}.service")
    others = whole.engines("gpu1")
    try:
        runs = [whole.deploy(inventory=llama) for _ in range(2)]
        for run in runs:
            assert run.status == 0, run.text
            assert f"gpu1/{name} is left out: {name} is quarantined since monday" in run.text
        assert runs[1].changes == 0, runs[1].text
        assert whole.engines("gpu1") == others
        assert out(whole) == {"10.99.0.11:8002"}
    finally:
        lifted = person(whole, llama, "quarantine", lift=f"gpu1/{name}")
    assert lifted.status == 0, lifted.text
    run = whole.deploy(*FAST, inventory=llama)
    assert run.status == 0, run.text
    assert f"llm-engine@{name}.service" in whole.engines("gpu1")
