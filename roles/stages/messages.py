"""What a deploy is told by `--data`."""

from collections.abc import Iterable

from pyinfra import host

from roles.fleet import SWITCHES
from roles.fleet.checked import RefusedError
from roles.hardware import Fault
from roles.host.outcome import warn


def wants(name: str, default: bool) -> bool:
    """What `--data NAME=true` or `=false` says; RefusedError for anything else."""
    # What is judged at the start are these.
    assert name in SWITCHES, name
    value = host.data.get(name, default)
    if not isinstance(value, bool):
        raise RefusedError(f"--data {name}={value}: say true or false")
    return value


def warn_faults(faults: Iterable[Fault]) -> None:
    """Print what is not well on this host."""
    for fault in faults:
        warn(str(fault))
