"""What the watchdogs of the lab's hosts see and do, as a person would ask them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from . import hosts
from .conftest import Fleet


def agent(host: str, question: str) -> str:
    """What the agent port of a host answers, asked on the host itself."""
    command = f"exec 3<>/dev/tcp/127.0.0.1/7440; echo {question} >&3; cat <&3"
    return hosts.ssh(host, f"timeout 5 bash -c '{command}'").stdout.strip()


def replicas(host: str) -> list[dict[str, Any]]:
    """What the watchdog of a host says of each replica; none where it gives no answer."""
    with suppress(ValueError, KeyError):
        return json.loads(agent(host, "state"))["replicas"]
    return []


def state(host: str, replica: str) -> str:
    """The state of a replica, "" where nobody says."""
    return {one["name"]: one["state"] for one in replicas(host)}.get(replica, "")


def all_serve(host: str) -> bool:
    """Whether a host has replicas, and each serves."""
    return {one["state"] for one in replicas(host)} == {"serving"}


def taken(host: str, port: int, balancer: str = "lb1") -> bool:
    """Whether the balancer's host can connect to a replica's port."""
    command = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{hosts.host(host).address}/{port}'"
    return hosts.ssh(balancer, command).returncode == 0


def counted(fleet: Fleet, host: str) -> Counter[str]:
    """How often a watchdog did what, over the replicas of its host."""
    counts: Counter[str] = Counter()
    for line in fleet.ssh(host, "cat /var/lib/llm/metrics/llm.prom").splitlines():
        if line.startswith("llm_watchdog_actions_total{"):
            action = line.partition('action="')[2].partition('"')[0]
            counts[action] += int(float(line.split()[-1]))
    return counts


def moves(fleet: Fleet, names: Iterable[str], since: int) -> list[tuple[float, str, bool]]:
    """When which replica left the rotation, or was found to serve again, by the watchdogs' logs."""
    read = f"sudo journalctl -u llm-watchdog -o short-unix --no-pager --since @{since}"
    move = re.compile(r"^([0-9.]+) \S+ \S+ (\S+): (leaves the rotation$|\S+ -> serving)", re.M)
    return [
        (float(stamp), f"{host}/{name}", "serving" in what)
        for host in names
        for stamp, name, what in move.findall(fleet.ssh(host, read))
    ]
