"""Barriers, at which hosts wait for each other."""

from pyinfra import host
from pyinfra.api import operation


@operation()
def _barrier():
    """Do nothing; every host that calls it waits here for all others."""
    host.noop("all hosts are here")
    return
    yield


def barrier(reason: str) -> None:
    """Let no host go on before all others have reached this barrier.

    pyinfra orders operations of different hosts by their number on each host. Without a barrier a
    balancer would ask for completions before a host with more operations has started its engines.
    """
    _barrier(name=reason)
