"""Hardware that is recorded instead of declared: discover, deploy, a lost GPU, the new state."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.lab import faults
from tests.lab.conftest import ROOT, Fleet, wait_until
from tests.lab.inventories import GPUS, llama_inventory
from tests.lab.test_main_job import UPSTREAM

WHOLE = "llm-engine@qwen2.5-14b-0.service"
"""The replica of gpu3 that has no part of the GPU that is lost."""
LOSER = "qwen2.5-14b-1"
"""The one that has."""


@pytest.fixture
def undeclared(tmp_path: Path) -> Path:
    """The lab's inventory without any word of GPUs."""
    return llama_inventory(tmp_path / "lab.py", dict.fromkeys(GPUS))


def written(fleet: Fleet) -> str:
    """What stands on gpu3 of ours, and since when."""
    return fleet.ssh("gpu3", "sudo find /etc/llm /opt/llm/engines -maxdepth 2 -printf '%p %T@\\n'")


def quarantine(fleet: Fleet) -> str:
    """What the watchdog has written of gpu3's quarantined replica; "" without one."""
    return fleet.ssh("gpu3", f"sudo cat /var/lib/llm/quarantine/{LOSER}.json 2>/dev/null || true")


def test_recorded_hardware_is_planned_compared_and_renewed(
    llama_fleet: Fleet, llama: Path, undeclared: Path
):
    fleet = llama_fleet
    unknown = fleet.deploy(inventory=undeclared)
    assert unknown.status != 0
    assert "hosts[gpu1].gpus: are neither declared nor recorded" in unknown.text
    assert "deploys/discover.py" in unknown.text

    found = fleet.pyinfra(undeclared, "deploys/discover.py", "-y")
    assert found.status == 0, found.text
    file = undeclared.parent / "hardware" / "lab.yaml"
    first = file.read_bytes()
    hosts = yaml.safe_load(first)
    assert {name: len(host["gpus"]) for name, host in hosts.items()} == {
        "gpu1": 2,
        "gpu2": 2,
        "gpu3": 4,
    }
    assert hosts["gpu2"]["links"] == ["X PHB", "PHB X"]
    assert hosts["gpu1"]["driver_version"] == "595.80"
    assert b"GPU-" not in first
    fleet.pyinfra(undeclared, "deploys/discover.py", "-y")
    assert file.read_bytes() == first

    # What is recorded is what the lab's own inventory declares: nothing is to be done.
    same = fleet.deploy("--data", "validate=false", inventory=undeclared)
    assert same.status == 0, same.text
    assert same.changes == 0, same.text

    # A driver that somebody else has upgraded is recorded, not refused.
    file.write_bytes(first.replace(b"595.80", b"590.48.01"))
    renewed = fleet.deploy("--data", "validate=false", inventory=undeclared)
    assert renewed.status == 0 and renewed.changes == 0, renewed.text
    assert file.read_bytes() == first

    before, files = fleet.engines("gpu3"), written(fleet)
    faults.gpu_lost("gpu3", 2)
    try:
        # The watchdog may not reboot the host, so it takes out the replica, and names the GPU.
        wait_until(lambda: "2 NVIDIA A10G" in quarantine(fleet), "the quarantine", 120)
        # Another GPU than declared stops that host alone.
        declared = fleet.deploy(inventory=llama)
        assert declared.status == 1
        assert "4x NVIDIA A10G (23028 MiB) in the inventory" in declared.text
        assert "the host reports: 3x NVIDIA A10G" in declared.text
        assert declared.failed() == {"gpu3"}, declared.text
        assert "Repair the host, or take its new state" in declared.text
        # The engine on the lost GPU died with it; the other replica stays where it is.
        assert set(fleet.upstream()) == set(UPSTREAM)
        assert fleet.upstream()["10.99.0.13:8001"]

        # So does another than recorded.
        lost = fleet.deploy("--data", "validate=false", inventory=undeclared)
        assert lost.status == 1
        assert "GPU 2 (NVIDIA A10G at 0000:" in lost.text and "is missing" in lost.text
        assert "reboot the host" in lost.text
        assert "--data accept_hardware=true" in lost.text
        assert fleet.engines("gpu3")[WHOLE] == before[WHOLE]
        assert written(fleet) == files

        kept = fleet.pyinfra(undeclared, "deploys/discover.py", "-y")
        assert "Not recorded: fix it" in kept.text
        assert file.read_bytes() == first

        taken = fleet.deploy("--data", "accept_hardware=true", inventory=undeclared)
        assert taken.status == 0, taken.text
        assert "gpu3 is accepted as 3x NVIDIA A10G" in taken.text
        gpus = yaml.safe_load(file.read_text())["gpu3"]["gpus"]
        assert [gpu.get("index") for gpu in gpus] == [None, None, 3]
        assert list(fleet.engines("gpu3")) == [WHOLE]
    finally:
        faults.clear("gpu3")
    # The GPU is back: again the host has other hardware than is recorded.
    back = fleet.deploy("--data", "validate=false", inventory=undeclared)
    assert back.status == 1 and "is new" in back.text
    lifted = fleet.pyinfra(llama, "deploys/quarantine.py", "-y", "--data", f"lift=gpu3/{LOSER}")
    assert lifted.status == 0, lifted.text
    # What is declared is there again: the run takes all back.
    restored = fleet.deploy("--data", "validate=false", inventory=llama)
    assert restored.status == 0, restored.text
    assert sorted(fleet.engines("gpu3")) == sorted(before)
    assert fleet.upstream() == UPSTREAM


def test_the_facts_of_live_hosts_as_json(lab: Fleet):
    shown = lab.pyinfra(
        "inventories/lab.py", "fact", "roles.hardware.facts.Hardware", "--limit", "gpu1", "--json"
    )
    assert shown.status == 0, shown.text
    text = shown.text[shown.text.index("{") : shown.text.rindex("}") + 1]
    printed = json.loads(text)
    host = (
        next(iter(next(iter(printed.values())).values()))
        if "gpu1" not in printed
        else printed["gpu1"]
    )
    assert [gpu["name"] for gpu in host["hardware"]["gpus"]] == ["NVIDIA L40S"] * 2
    assert host["system"]["os"] == "debian 12"


def test_a_deploy_is_held_to_the_saved_plan(lab: Fleet, inventory):
    file = inventory()
    saved = subprocess.run(
        [sys.executable, "-m", "roles.topology", "fleet", str(file), "--save"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert saved.returncode == 0, saved.stderr
    plan = file.parent / "plans" / "lab.yaml"
    assert str(plan) in saved.stdout
    assert lab.pyinfra(file, "deploys/plan.py", "-y").status == 0

    inventory(('"max_model_len": 4096,', '"max_model_len": 2048,'))
    held = lab.pyinfra(file, "deploys/plan.py", "-y")
    assert held.status != 0
    assert "the plan is not the saved one" in held.text
    assert "max_model_len 4096 → 2048" in held.text and "accept_plan=true" in held.text
    accepted = lab.pyinfra(file, "deploys/plan.py", "-y", "--data", "accept_plan=true")
    assert accepted.status == 0, accepted.text
    assert "max_model_len: 2048" in plan.read_text()
    assert lab.pyinfra(file, "deploys/plan.py", "-y").status == 0
