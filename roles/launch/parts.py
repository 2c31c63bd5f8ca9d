"""A part of a replica over several hosts: the files by which its unit runs `part.py`, which starts
the engine. Pure.
"""

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from roles.engine import Group, Start
from roles.host import bundle
from roles.plan import Replica

PROGRAM, ENGINE, CONFIG, SECRET = "part.py", "engine", "part.json", "part.secret"
# The host's own Python; only its standard library is used.
COMMAND = f"/usr/bin/python3 -I {PROGRAM}"
# Variables that name devices of a host, which may be others on each.
_OF_HOSTS = ("NCCL_IB_HCA",)
_UNIT = (
    "# The engine is stopped by its part alone, and what it leaves is killed.",
    "KillMode=mixed",
    "NotifyAccess=main",
)


@dataclass(frozen=True)
class Member:
    """A host of a replica, and the address by which the replica's other hosts reach it."""

    host: str
    address: str


def group_of(
    replica: Replica, members: Sequence[Member], host: str, first_port: int
) -> Group | None:
    """What a host's part of a replica must know of the others; None for a replica of one host."""
    if not replica.members:
        return None
    return Group(
        rank=replica.hosts.index(host),
        addresses=tuple(one.address for one in members),
        first_port=first_port,
        gpus=len(replica.gpus),
        executor=replica.executor,
    )


def as_part(
    start: Start,
    group: Group,
    hosts: Sequence[str],
    key: str,
    name: str,
    drain_s: int,
    alike: str,
) -> Start:
    """The start of a part, which waits for the others and then starts the engine.

    `alike` is the digest that all parts must have alike. The secret by which the parts know each
    other follows from the engines' key.
    """
    config = {
        "name": name,
        "hosts": list(hosts),
        "drain_s": drain_s,
        "settings": alike,
        **_config(start, group),
    }
    return replace(
        start,
        command=COMMAND,
        files={
            **start.files,
            PROGRAM: program(),
            ENGINE: f"exec {start.command}\n",
            CONFIG: json.dumps(config, indent=1) + "\n",
            SECRET: secret_of(key, name, hosts) + "\n",
        },
        credentials=(*start.credentials, SECRET),
        unit=(*start.unit, *_UNIT),
    )


def _config(start: Start, group: Group) -> dict[str, Any]:
    return {
        "rank": group.rank,
        "addresses": list(group.addresses),
        "port": group.meeting_port,
        "engine": ENGINE,
        "address_variables": list(start.address_variables),
        "interface_variables": dict(start.interface_variables),
    }


def secret_of(key: str, name: str, hosts: Sequence[str]) -> str:
    """The secret of a group, which its engines' key is not known by."""
    text = "\0".join(("members", name, *hosts))
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def digest_of(start: Start) -> str:
    """A digest of a start, of which nothing is secret: a part sends it before it knows the head."""
    own = {*start.address_variables, *start.interface_variables, *_OF_HOSTS}
    environment = {name: start.environment[name] for name in start.environment.keys() - own}
    settings = [start.command, environment, dict(start.files), start.unit]
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def program() -> str:
    """The program of a part, as hosts run it."""
    here = Path(__file__).parent
    return bundle([here / "wire.py", here / "part.py"], {})
