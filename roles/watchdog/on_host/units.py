"""The units of replicas, as systemd has them; runs on a host."""

import subprocess
from collections import namedtuple

from roles.host.probe import plain

SYSTEMCTL_S = 5
UNIT = "llm-engine@%s.service"


# What a part of a replica over several hosts says of itself while others are not there.
WAITS = "waits for "


class Unit(namedtuple("Unit", "active invocation waits", defaults=("",))):
    """Whether a unit runs, the id of its start, and whom it waits for, in words, or ""."""


def read_units(names):
    """The units of replicas by name; None where systemd does not answer."""
    command = ["systemctl", "show", "--property=Id,ActiveState,InvocationID,StatusText"]
    try:
        done = subprocess.run(
            command + [UNIT % name for name in names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SYSTEMCTL_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_units(done.stdout.decode(errors="replace"), names)


def parse_units(text, names):
    """The units by replica from blocks of properties."""
    found = {}
    for block in text.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        found[values.get("Id")] = Unit(
            values.get("ActiveState") in ("active", "reloading", "deactivating"),
            values.get("InvocationID", ""),
            _waits(values.get("StatusText", "")),
        )
    return {name: found.get(UNIT % name, Unit(False, "")) for name in names}


def _waits(status):
    """The status of a unit where it says that it waits; an engine may write one, too."""
    return plain(status)[:200] if status.startswith(WAITS) else ""
