"""Switches of `--data`, and warnings about faults."""

from collections.abc import Iterable

from pyinfra import host

from roles.driver import REMEDIATED, DriverSettings
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


def warn_faults(faults: Iterable[Fault], driver: DriverSettings | None = None) -> None:
    """Print this host's faults as warnings, but for those that its driver stage repairs."""
    repairs = driver is not None and driver.install != "never"
    for fault in faults:
        if not (repairs and fault.severity == "warning" and fault.kind in REMEDIATED):
            warn(str(fault))
