"""The program that measures on a host, and the command that runs it there. Pure: text out."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from roles.engine import VISIBLE_DEVICES, Build
from roles.hardware import LinkVerdict
from roles.host import bundle
from roles.host.paths import REPLICAS, UNIT_GLOB, UNIT_PREFIX
from roles.interconnect.all_reduce import START_TIMES
from roles.interconnect.settings import InterconnectSettings
from roles.interconnect.verdicts import Group

HERE = Path(__file__).parent
UNIT = "llm-interconnect"
# NCCL reduces small messages by other protocols than large ones; the last size is timed.
SIZES = {"nccl": (4096, 2**20, 64 * 2**20), "gloo": (4096, 2**18, 4 * 2**20)}
# A cold disk reads torch's gigabytes slowly.
IMPORT_S = 300
# Reads names of units on the standard input and prints the devices of their replicas. Replicas of
# an earlier version of this project have an .env file instead of a folder.
HOLDERS = f"""import json, sys
for unit in sys.stdin:
    name = unit.strip()[len("{UNIT_PREFIX}"):-len(".service")]
    try:
        with open("{REPLICAS}/%s/current/replica.json" % name) as file:
            replica = json.load(file)
        print(*(replica["devices"] or replica["gpus"]))
    except FileNotFoundError:
        with open("{REPLICAS}/%s.env" % name) as file:
            values = [line.split("=", 1)[1] for line in file if "_VISIBLE_DEVICES=" in line]
        print(*values[0].strip().strip(chr(34)).split(",")[:64])
"""
# How long killed processes may take to end, beside three seconds each.
END_S = 10


def program(
    groups: Sequence[Group],
    known: Sequence[LinkVerdict],
    engine: Build,
    settings: InterconnectSettings,
    devices: Mapping[int, str],
) -> str:
    """The program for the engine's Python. What has a verdict in `known` is not measured again."""
    cpu = engine.device == "cpu"
    task: dict[str, Any] = {
        "groups": [
            {
                "gpus": group.gpus,
                "devices": [devices.get(gpu, str(gpu)) for gpu in group.gpus],
                "p2p": group.p2p,
                "also_without_p2p": group.also_without_p2p,
            }
            for group in groups
        ],
        "known": [{"gpus": one.gpus, "p2p": one.p2p, "outcome": one.outcome} for one in known],
        "cpu": cpu,
        "sizes": SIZES["gloo" if cpu else "nccl"],
        "timeout_s": settings.timeout_s,
        "visible": VISIBLE_DEVICES[engine.device],
        "environment": _environment(engine),
    }
    return bundle([HERE / "modes.py", HERE / "all_reduce.py"], task)


def limit_s(groups: Sequence[Group], settings: InterconnectSettings) -> int:
    """The seconds after which the program has ended in any case: the sum of all tests' limits, with
    P2P and without."""
    return IMPORT_S + sum(
        2 * ((START_TIMES + 1) * settings.timeout_s + 3 * len(group.gpus) + END_S)
        for group in groups
    )


def command(engine: Build, python: str, user: str, seconds: int) -> str:
    """The shell command that runs the program, which comes on the standard input.

    The program runs in a transient unit, as the engines' user, or as a temporary user where that
    does not exist yet. systemd ends all its processes when it ends, when its time is up, or when
    nobody reads its output any more. Its arguments are the devices of running replicas.
    """
    properties = (
        *(f"RuntimeMaxSec={seconds}", "TimeoutStopSec=5", "PrivateTmp=yes", "RemoveIPC=yes"),
        *("LimitMEMLOCK=infinity", "NoNewPrivileges=yes", "ProtectSystem=strict"),
        *("ProtectHome=yes", "UMask=0077"),
    )
    options = " ".join(f"-p {one}" for one in properties)
    # Creates the cards' device files, as the replicas' units do.
    wake = (
        "timeout 60 nvidia-smi -L; timeout 60 nvidia-modprobe -c 0 -u"
        if engine.device == "cuda"
        else ":"
    )
    return "\n".join(
        [
            f"{{ {wake}; }} </dev/null >/dev/null 2>&1",
            f"HOLDERS={shlex.quote(HOLDERS)}",
            f"if id -u {shlex.quote(user)} >/dev/null 2>&1; "
            f"then as=User={shlex.quote(user)}; else as=DynamicUser=yes; fi",
            "groups=; for g in video render; do "
            'getent group "$g" >/dev/null && groups="$groups $g"; done',
            "busy=$(systemctl list-units --plain --no-legend "
            f"--state=active,activating,reloading,deactivating '{UNIT_GLOB}' </dev/null "
            "| awk '{print $1}' | python3 -c \"$HOLDERS\")",
            f"timeout -k 10 {seconds + 30} systemd-run --quiet --pipe --wait --collect "
            f'--unit={UNIT} -p "$as" -p "SupplementaryGroups=$groups" {options} '
            f"{shlex.quote(python)} - $busy 2>&1 || true",
        ]
    )


def _environment(engine: Build) -> dict[str, str]:
    """The environment of the tests: that of the engine, and interfaces for NCCL and gloo."""
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "HOME": "/tmp",
        **engine.plain_environment,
    }
