"""What is sent to a host: a whole program, and a command that bounds it."""

import json
import subprocess
import sys

import pytest

from roles.engine import VllmSettings
from roles.hardware import LinkVerdict
from roles.interconnect import InterconnectSettings
from roles.interconnect.program import command, limit_s, program
from roles.interconnect.verdicts import Group

CPU = VllmSettings(device="cpu", environment={"OMP_NUM_THREADS": "1"})
SETTINGS = InterconnectSettings()
GROUPS = [Group((0, 1), True, False), Group((0, 1, 2, 3), True, True)]


def task(**more) -> dict:
    known = {"groups": GROUPS, "known": [], "engine": CPU, "settings": SETTINGS, "devices": {}}
    text = program(**(known | more))
    line = next(line for line in text.splitlines() if line.startswith("TASK = json.loads("))
    return json.loads(eval(line.removeprefix("TASK = json.loads(").removesuffix(")")))


def test_a_group_goes_by_what_cuda_calls_its_devices():
    groups = task(devices={1: "MIG-1"})["groups"]
    assert groups[0] == {
        "gpus": [0, 1],
        "devices": ["0", "MIG-1"],
        "p2p": True,
        "also_without_p2p": False,
    }


@pytest.mark.parametrize(
    ("device", "cpu", "visible", "largest"),
    [
        ("cuda", False, "CUDA_VISIBLE_DEVICES", 64 * 2**20),
        ("rocm", False, "HIP_VISIBLE_DEVICES", 64 * 2**20),
        ("cpu", True, "CUDA_VISIBLE_DEVICES", 4 * 2**20),
    ],
)
def test_each_device_has_its_library(device: str, cpu: bool, visible: str, largest: int):
    made = task(engine=VllmSettings.model_validate({"device": device}))
    assert (made["cpu"], made["visible"], made["sizes"][-1]) == (cpu, visible, largest)
    assert made["environment"]["NCCL_SOCKET_IFNAME"] == "lo"


def test_the_engines_environment_goes_for_it_too():
    assert task()["environment"]["OMP_NUM_THREADS"] == "1"


def test_known_verdicts_are_not_measured_again():
    known = [LinkVerdict((0, 1), True, "hangs")]
    assert task(known=known)["known"] == [{"gpus": [0, 1], "p2p": True, "outcome": "hangs"}]


def test_the_text_is_one_whole_program():
    text = program(GROUPS, [], CPU, SETTINGS, {})
    assert "from roles" not in text
    done = subprocess.run(
        [sys.executable, "-I", "-", "7"], input=text, capture_output=True, text=True, timeout=300
    )
    # This project's own Python has no torch: that is said, and is no crash.
    assert json.loads(done.stdout.removeprefix("@@ "))["problem"].startswith("the engine's Python")


def test_the_limit_covers_every_way_of_every_group():
    slow = InterconnectSettings(timeout_s=600)
    assert limit_s(GROUPS, SETTINGS) > 300 + 2 * 2 * 4 * 60
    assert limit_s(GROUPS, slow) > 300 + 2 * 2 * 4 * 600


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_command_bounds_the_program(device: str):
    engine = VllmSettings.model_validate({"device": device})
    line = command(engine, "/opt/e/bin/python", "llm-engine", 500)
    assert subprocess.run(["sh", "-n"], input=line, text=True).returncode == 0
    assert "timeout -k 10 530 systemd-run" in line
    assert "RuntimeMaxSec=500" in line
    assert "/opt/e/bin/python - $busy" in line
    assert ("nvidia-smi" in line) == (device == "cuda")


def test_devices_of_running_replicas_become_arguments(tmp_path):
    """The command itself, with programs of a host that say what they were given."""
    replicas = tmp_path / "replicas"
    replicas.mkdir()
    for name, devices in (("qwen-0", []), ("qwen-1", ["GPU-2"])):
        (replicas / name / "current").mkdir(parents=True)
        about = {"name": name, "gpus": [0, 1], "devices": devices}
        (replicas / name / "current/replica.json").write_text(json.dumps(about))
    # One that an older deploy left.
    (replicas / "old.env").write_text('HOME="x"\nCUDA_VISIBLE_DEVICES="3,4"\n')
    for name, text in {
        "systemctl": "echo llm-engine@qwen-0.service loaded active running LLM engine\n"
        "echo llm-engine@qwen-1.service loaded activating auto-restart LLM engine\n"
        "echo llm-engine@old.service loaded active running LLM engine",
        "systemd-run": 'for a in "$@"; do echo "[$a]"; done; cat',
        "id": "exit 1",
        "getent": '[ "$2" = render ]',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    line = command(CPU, "/opt/e/bin/python", "llm-engine", 500).replace(
        "/etc/llm/replicas", str(replicas)
    )
    done = subprocess.run(
        ["sh", "-c", line],
        input="the program",
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    given = done.stdout.splitlines()
    assert given[-6:] == ["[0]", "[1]", "[GPU-2]", "[3]", "[4]", "the program"]
    assert "[DynamicUser=yes]" in given
    assert "[SupplementaryGroups= render]" in given
