"""What a deploy is told by `--data`."""

from collections.abc import Iterable

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError

from roles.hardware import Fault
from roles.host.outcome import warn


def wants(name: str, default: bool) -> bool:
    """What `--data NAME=true` or `=false` says; PyinfraError for anything else."""
    value = host.data.get(name, default)
    if not isinstance(value, bool):
        raise PyinfraError(f"--data {name}={value}: say true or false")
    return value


def warn_faults(faults: Iterable[Fault]) -> None:
    """Print what is not well on this host."""
    for fault in faults:
        warn(str(fault))
