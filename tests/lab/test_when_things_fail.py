"""What goes wrong on real hosts: the others go on, the old service stays, the message says why."""

import threading
import time

import pytest

from tests.lab import faults, hosts
from tests.lab.conftest import RUN_TIMEOUT_S, Fleet, Run
from tests.lab.test_main_job import UPSTREAM


def wait_until(true, timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(1)


def test_a_dead_replica_is_served_by_the_others_and_comes_back(fleet: Fleet):
    unit = "llm-engine@qwen2.5-14b-0.service"
    before = fleet.engines("gpu1")[unit]
    # A request that the engine had begun is lost with it; those that come after must not be.
    fleet.ssh("gpu1", f"sudo kill -9 {before}; while sudo kill -0 {before} 2>&-; do sleep .1; done")
    assert [fleet.ask()[0] for _ in range(8)] == [200] * 8
    healthy = "curl -sf -m 20 -o /dev/null http://127.0.0.1:8001/health"
    wait_until(lambda: hosts.ssh("gpu1", healthy).returncode == 0)
    assert fleet.engines("gpu1")[unit] != before


def test_a_bad_engine_configuration_leaves_the_old_service_running(fleet: Fleet, inventory):
    before = {host: fleet.engines(host) for host in ("gpu1", "gpu2", "gpu3")}
    bad = inventory(('"enforce-eager": True,', '"enforce-eager": True, "no-such-option": 1,'))
    run = fleet.deploy(inventory=bad)
    assert run.status == 1
    assert "last log lines of llm-engine@qwen2.5-14b-0.service" in run.text, run.text
    assert "no-such-option" in run.text
    assert "The old settings are back" in run.text
    # The roll stopped at the first host: the others were not touched.
    assert {host: fleet.engines(host) for host in ("gpu2", "gpu3")} == {
        host: before[host] for host in ("gpu2", "gpu3")
    }
    assert "the old replicas serve on: gpu1 failed" in run.text
    assert fleet.ask()[0] == 200
    again = fleet.deploy("--data", "validate=false")
    assert again.status == 0, again.text
    assert sorted(fleet.engines("gpu1")) == sorted(before["gpu1"])


def test_another_gpu_than_declared_stops_that_host_alone(fleet: Fleet):
    unit = "llm-engine@qwen2.5-14b-0.service"
    before = fleet.engines("gpu3")[unit]
    written = fleet.ssh(
        "gpu3", "sudo find /etc/llm /opt/llm/engines -maxdepth 2 -printf '%p %T@\\n'"
    )
    faults.gpu_lost("gpu3", 3)
    try:
        run = fleet.deploy()
    finally:
        faults.clear("gpu3")
    assert run.status == 1
    assert "4x NVIDIA A10G (23028 MiB) in the inventory" in run.text
    assert "the host reports: 3x NVIDIA A10G" in run.text
    assert run.failed() == {"gpu3"}, run.text
    assert "Mend the host, or take its new state" in run.text
    assert fleet.engines("gpu3")[unit] == before
    assert written == fleet.ssh(
        "gpu3", "sudo find /etc/llm /opt/llm/engines -maxdepth 2 -printf '%p %T@\\n'"
    )
    # The engine on the lost GPU died with it; the other replica stays where it is.
    assert set(fleet.upstream()) == set(UPSTREAM)
    assert fleet.upstream()["10.99.0.13:8001"]


def test_a_host_without_sudo_fails_alone(fleet: Fleet):
    faults.no_sudo("gpu2")
    try:
        run = fleet.deploy("--data", "validate=false")
    finally:
        faults.sudo("gpu2")
    assert run.status == 1
    assert "no passwordless sudo" in run.text
    assert fleet.upstream()["10.99.0.12:8001"]
    # The fault before this one is over: the next run takes all back.
    assert fleet.deploy("--data", "validate=false").status == 0
    assert fleet.upstream() == UPSTREAM


@pytest.mark.parametrize("limit", [["lb1"], ["lb1", "gpu1"]])
def test_limit_takes_nothing_out_of_the_upstream(fleet: Fleet, limit: list[str]):
    options = [option for name in limit for option in ("--limit", name)]
    run = fleet.deploy("--data", "validate=false", *options)
    assert run.status == 0, run.text
    assert run.changes == 0
    assert fleet.upstream() == UPSTREAM


def test_an_unreachable_host_keeps_its_place_while_it_serves(fleet: Fleet):
    # Its ssh is gone, its engines are not.
    fleet.ssh("gpu2", "sudo systemctl stop ssh.socket ssh.service; true")
    try:
        run = fleet.deploy("--data", "validate=false")
        assert run.status == 1
        assert "gpu2" in run.text
        assert fleet.upstream() == UPSTREAM
    finally:
        hosts.power_off("gpu2")
        hosts.power_on("gpu2")


def test_a_host_that_loses_power_in_the_middle(fleet: Fleet):
    run = fleet.start("inventories/lab.py", "deploys/llm.py", "-y")
    assert run.stdout is not None
    said = ""
    limit = threading.Timer(RUN_TIMEOUT_S, run.kill)
    limit.start()
    for line in run.stdout:
        said += line
        if "Beginning operation run" in line:
            hosts.power_off("gpu3")
    status = run.wait()
    limit.cancel()
    assert status == 1
    # Alone: all others are finished and proved.
    assert Run(status, said).failed() == {"gpu3"}, said
    assert "10.99.0.10:443  completion   pass" in said
    assert fleet.ask()[0] == 200
    upstream = fleet.upstream()
    assert set(upstream) == set(UPSTREAM)
    assert upstream["10.99.0.11:8001"]
    # It comes back by itself; the next run puts it back where it was.
    hosts.power_on("gpu3")
    again = fleet.deploy()
    assert again.status == 0, again.text
    assert fleet.upstream() == UPSTREAM


def test_bad_input_never_reaches_a_host(fleet: Fleet, inventory):
    bad = inventory(('"max_model_len": 4096', '"max_model_len": -1, "nmae": 1'))
    run = fleet.deploy(inventory=bad)
    assert run.status == 1
    assert "services[0].max_model_len: " in run.text
    assert "services[0].nmae: unknown key; did you mean name?" in run.text
    assert "Connecting" not in run.text


def test_a_roll_loses_no_request(fleet: Fleet, inventory):
    before = fleet.engines("gpu1")
    changed = inventory(('"max-num-seqs": 8', '"max-num-seqs": 7'))
    limit = ("--limit", "gpu1", "--limit", "lb1", "--data", "validate=false")
    with fleet.asking() as statuses:
        run = fleet.deploy(*limit, inventory=changed)
    assert run.status == 0, run.text
    after = fleet.engines("gpu1")
    assert all(after[unit] != before[unit] for unit in before)
    assert set(statuses) == {200}, statuses
    assert fleet.upstream() == UPSTREAM
    again = fleet.deploy(*limit, inventory=changed)
    assert (again.status, again.changes) == (0, 0), again.text
