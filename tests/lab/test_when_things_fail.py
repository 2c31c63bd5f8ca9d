"""What goes wrong on real hosts: the others go on, the old service stays, the message says why."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.lab import faults, hosts
from tests.lab.conftest import RUN_TIMEOUT_S, Fleet, Run, wait_until
from tests.lab.inventories import LLAMA_SERVICE, llama_inventory
from tests.lab.test_main_job import UPSTREAM


def test_a_dead_replica_is_served_by_the_others_and_comes_back(llama_fleet: Fleet):
    fleet, unit = llama_fleet, "llm-engine@qwen2.5-14b-0.service"
    before = fleet.engines("gpu1")[unit]
    # A request that the engine had begun is lost with it; those that come after must not be.
    fleet.ssh("gpu1", f"sudo kill -9 {before}; while sudo kill -0 {before} 2>&-; do sleep .1; done")
    assert [fleet.ask()[0] for _ in range(8)] == [200] * 8
    healthy = "curl -sf -m 20 -o /dev/null http://127.0.0.1:8001/health"
    wait_until(lambda: hosts.ssh("gpu1", healthy).returncode == 0, "a healthy replica")
    assert fleet.engines("gpu1")[unit] != before


def with_arguments(folder: Path, **arguments: Any) -> Path:
    """The lab's inventory on llama.cpp with these options of it (`_` for `-`)."""
    given = {name.replace("_", "-"): value for name, value in arguments.items()}
    return llama_inventory(folder / "lab.py", services=[{**LLAMA_SERVICE, "arguments": given}])


def test_a_bad_engine_configuration_leaves_the_old_service_running(
    llama_fleet: Fleet, llama: Path, tmp_path: Path
):
    fleet = llama_fleet
    before = {host: fleet.engines(host) for host in ("gpu1", "gpu2", "gpu3")}
    run = fleet.deploy(inventory=with_arguments(tmp_path, threads_http="many"))
    assert run.status == 1
    # Both start together: either may be the first that is known not to serve.
    assert re.search(r"last log lines of llm-engine@qwen2\.5-14b-[01]\.service", run.text), run.text
    assert 'argument "--threads-http"' in run.text
    assert "The old settings are back" in run.text
    # The roll stopped at the first host: the others were not touched.
    assert {host: fleet.engines(host) for host in ("gpu2", "gpu3")} == {
        host: before[host] for host in ("gpu2", "gpu3")
    }
    assert re.search(r"gpu1 failed.*; its replicas stay as they are", run.text), run.text
    assert fleet.ask()[0] == 200
    again = fleet.deploy("--data", "validate=false", inventory=llama)
    assert again.status == 0, again.text
    assert sorted(fleet.engines("gpu1")) == sorted(before["gpu1"])


def test_a_host_without_sudo_stops_alone(llama_fleet: Fleet, llama: Path):
    faults.no_sudo("gpu2")
    try:
        run = llama_fleet.deploy("--data", "validate=false", inventory=llama)
    finally:
        faults.sudo("gpu2")
    assert run.status == 1
    assert "no passwordless sudo" in run.text
    assert "[gpu2] stopped, nothing was changed here: preflight: sudo" in run.text
    assert run.changes == 0, run.text
    assert llama_fleet.upstream() == UPSTREAM
    assert llama_fleet.deploy("--data", "validate=false", inventory=llama).status == 0
    assert llama_fleet.upstream() == UPSTREAM


@pytest.mark.parametrize("limit", [["lb1"], ["lb1", "gpu1"]])
def test_limit_takes_nothing_out_of_the_upstream(llama_fleet: Fleet, llama: Path, limit: list[str]):
    options = [option for name in limit for option in ("--limit", name)]
    run = llama_fleet.deploy("--data", "validate=false", *options, inventory=llama)
    assert run.status == 0, run.text
    assert run.changes == 0
    assert llama_fleet.upstream() == UPSTREAM


def test_a_host_that_nobody_reaches_and_one_that_loses_power_in_the_middle(
    llama_fleet: Fleet, llama: Path
):
    fleet = llama_fleet
    # Its ssh is gone, its engines are not.
    fleet.ssh("gpu2", "sudo systemctl stop ssh.socket ssh.service; true")
    try:
        run = fleet.start(llama, "deploys/llm.py", "-y")
        assert run.stdout is not None
        text = ""
        limit = threading.Timer(RUN_TIMEOUT_S, run.kill)
        limit.start()
        for line in run.stdout:
            text += line
            if "Beginning operation run" in line:
                hosts.power_off("gpu3")
        status = run.wait()
        limit.cancel()
        assert status == 1
        # All others are finished and proved.
        assert Run(status, text).failed() - {"gpu2"} == {"gpu3"}, text
        assert "gpu2" in text
        assert re.search(r"10\.99\.0\.10:443 +completion +pass", Run(status, text).log), text
        assert fleet.ask()[0] == 200
        upstream = fleet.upstream()
        assert set(upstream) == set(UPSTREAM)
        # Who serves keeps its place.
        assert upstream["10.99.0.11:8001"] and upstream["10.99.0.12:8001"]
    finally:
        hosts.power_off("gpu2")
        hosts.power_on("gpu2")
    # It comes back by itself; the next run puts it back where it was.
    hosts.power_on("gpu3")
    again = fleet.deploy(inventory=llama)
    assert again.status == 0, again.text
    assert fleet.upstream() == UPSTREAM


def test_a_fresh_balancer_takes_the_place_of_one_that_is_gone(llama_fleet: Fleet, llama: Path):
    before = {host: llama_fleet.engines(host) for host in ("gpu1", "gpu2", "gpu3")}
    hosts.remove("lb1")
    hosts.add("lb1")
    run = llama_fleet.deploy(inventory=llama)
    assert run.status == 0, run.text
    assert llama_fleet.upstream() == UPSTREAM
    assert llama_fleet.ask()[0] == 200
    assert {host: llama_fleet.engines(host) for host in before} == before
    again = llama_fleet.deploy("--data", "validate=false", inventory=llama)
    assert (again.status, again.changes) == (0, 0), again.text


def test_bad_input_never_reaches_a_host(lab: Fleet, inventory):
    bad = inventory(('"max_model_len": 4096', '"max_model_len": -1, "nmae": 1'))
    run = lab.deploy(inventory=bad)
    assert run.status == 1
    assert "services[0].max_model_len: " in run.text
    assert "services[0].nmae: unknown key; did you mean name?" in run.text
    assert "Connecting" not in run.text


def test_a_roll_loses_no_request(llama_fleet: Fleet, tmp_path: Path):
    fleet = llama_fleet
    before = fleet.engines("gpu1")
    changed = with_arguments(tmp_path, batch_size=1024)
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
