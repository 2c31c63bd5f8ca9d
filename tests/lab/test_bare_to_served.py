"""Hosts as their providers hand them over join a fleet, and reboot without a lost request."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import debs, driver_faults, drivers, hosts
from tests.lab.conftest import Fleet
from tests.lab.inventories import GPUS, llama_inventory
from tests.lab.test_amd_drivers import MIRROR
from tests.lab.test_preflight import checks

OLD, NEW, _ = drivers.VERSIONS
BARE = hosts.host("bare1")


def joined(folder: Path, version: str, reboot: str = "when-needed") -> Path:
    """The lab's inventory with a bare host that gets this version of the driver."""
    settings = {
        "mirror": "http://10.99.0.1:8080/cuda/repos",
        "mirror_key_file": str(debs.REPOSITORY_KEY),
        "version": version,
        "reboot": reboot,
    }
    name = f"{version}-{reboot}.py"
    return llama_inventory(folder / name, {**GPUS, "bare1": "2x NVIDIA L40S"}, driver=settings)


@pytest.fixture(scope="module")
def with_bare(llama_fleet: Fleet, llama: Path, bare_hosts: None) -> Iterator[Fleet]:
    """The fleet with bare hosts beside it, one with NVIDIA's GPUs and one with AMD's."""
    with hosts.booted("bare1", "bare4"):
        yield llama_fleet
    again = llama_fleet.deploy("--data", "validate=false", inventory=llama)
    assert again.status == 0, again.text


def of_bare(fleet: Fleet) -> dict[str, bool]:
    return {
        server: is_in
        for server, is_in in fleet.upstream().items()
        if server.startswith(f"{BARE.address}:")
    }


def test_a_bare_host_serves_and_is_rebooted_aside(with_bare: Fleet, tmp_path: Path):
    fleet = with_bare
    before, after = joined(tmp_path, OLD), joined(tmp_path, NEW)
    some = ("--limit", "bare1", "--limit", "lb1")
    run = fleet.deploy(*some, inventory=before)
    assert run.status == 0, run.text
    assert "[bare1] is rebooted: the kernel's nouveau driver still holds the GPUs" in run.text
    assert f"driver {OLD} (open modules)" in run.text
    assert of_bare(fleet) == {f"{BARE.address}:8001": True, f"{BARE.address}:8002": True}
    again = fleet.deploy(*some, "--data", "validate=false", inventory=before)
    assert again.status == 0 and again.changes == 0, again.text

    # Nothing is changed under engines that serve, where their host must not be rebooted.
    never = joined(tmp_path, NEW, reboot="never")
    run = fleet.pyinfra(never, "deploys/drivers.py", "-y", *some)
    assert run.status == 1 and "driver.reboot" in run.text, run.text
    version = "nvidia-smi --query-gpu=driver_version --format=csv,noheader"
    assert set(fleet.ssh("bare1", version).splitlines()) == {OLD}

    # But a module that was lost is built again under them.
    driver_faults.lose_module("bare1", OLD)
    kept = joined(tmp_path, OLD, reboot="never")
    engines, boot = fleet.engines("bare1"), hosts.boot_id("bare1")
    run = fleet.pyinfra(kept, "deploys/drivers.py", "-y", *some)
    assert run.status == 0 and f"driver {OLD} (open modules)" in run.text, run.text
    assert (fleet.engines("bare1"), hosts.boot_id("bare1")) == (engines, boot)

    # Nor is it rebooted where nobody would pass it by.
    run = fleet.pyinfra(after, "deploys/drivers.py", "-y", "--limit", "bare1")
    assert run.status == 1 and "--limit lb1" in run.text, run.text

    with fleet.asking() as statuses:
        run = fleet.pyinfra(after, "deploys/drivers.py", "-y", *some)
    assert run.status == 0, run.text
    assert hosts.boot_id("bare1") != boot
    assert re.search(r"\[bare1\] is back after \d+ s", run.text), run.text
    assert f"driver {NEW} (open modules)" in run.text
    # Taken back only once its replicas answered again.
    assert of_bare(fleet) == {f"{BARE.address}:8001": True, f"{BARE.address}:8002": True}
    assert fleet.engines("bare1").keys() == engines.keys()
    assert set(statuses) == {200}, statuses


def test_an_amd_host_is_proved_by_amd_smi_and_served_by_the_balancer(
    with_bare: Fleet, tmp_path: Path
):
    # The build is the lab's for CPUs; all that is around it is as for AMD's GPUs.
    declared = {
        "gpus": "2x AMD Radeon AI PRO R9700",
        "engines": {"llama_cpp": {"device": "rocm"}},
        "driver": {**MIRROR, "reboot": "when-needed"},
    }
    served = llama_inventory(tmp_path / "lab.py", {**GPUS, "bare4": declared})
    some = ("--limit", "bare4", "--limit", "lb1")
    run = with_bare.deploy(*some, inventory=served)
    assert run.status == 0, run.text
    seen = checks("bare4")
    for name in ("completion", "load", "process", "memory"):
        assert seen[name]["outcome"] == "pass", seen[name]
    assert seen["utilization"]["outcome"] in ("pass", "warn"), seen["utilization"]
    unit = "llm-engine@qwen2.5-14b-0.service"
    pid = with_bare.engines("bare4")[unit]
    # One process over both cards, as amd-smi has it.
    assert seen["process"]["evidence"] == f"GPU 0: pid {pid}; GPU 1: pid {pid}"
    assert all(gpu in seen["utilization"]["evidence"] for gpu in ("GPU 0: ", "GPU 1: "))
    environment = with_bare.ssh("bare4", f"sudo cat /proc/{pid}/environ").split("\0")
    assert "HIP_VISIBLE_DEVICES=0,1" in environment
    groups = with_bare.ssh("bare4", f"systemctl show -P SupplementaryGroups {unit}")
    assert set(groups.split()) == {"render", "video"}
    assert with_bare.upstream()[f"{hosts.host('bare4').address}:8001"]
    assert with_bare.ask()[0] == 200
    again = with_bare.deploy(*some, "--data", "validate=false", inventory=served)
    assert (again.status, again.changes) == (0, 0), again.text
