"""Switches of `--data`, and warnings about faults."""

from collections.abc import Iterable

from pyinfra import host

from roles.fleet import SWITCHES
from roles.fleet.checked import RefusedError
from roles.hardware import Fault
from roles.host.outcome import warn


def wants(name: str, default: bool) -> bool:
    """What `--data NAME=true` or `=false` says; RefusedError for anything else."""
    # The command line was checked against these names.
    assert name in SWITCHES, name
    value = host.data.get(name, default)
    if not isinstance(value, bool):
        raise RefusedError(f"--data {name}={value}: say true or false")
    return value


def warn_faults(faults: Iterable[Fault]) -> None:
    """Print this host's faults as warnings."""
    for fault in faults:
        warn(str(fault))
