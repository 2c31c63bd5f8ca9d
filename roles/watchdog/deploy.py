"""The stage of a deploy that sets a host's watchdog up."""

from collections.abc import Callable, Sequence

from pyinfra.api import deploy

from roles.watchdog.operations import lifted, shown, watched
from roles.watchdog.render import HostWatch
from roles.watchdog.state import WatchdogState


@deploy("Watchdog")
def watch(watch: Callable[[], HostWatch], found: Callable[[], WatchdogState | None]) -> None:
    """Set the watchdog of a host up, or remove it; see `watched` for the parameters."""
    watched(name="Replicas are watched", watch=watch, found=found)


@deploy("Watchdog")
def lift(replica: str) -> None:
    """Show the quarantined replicas of a host, and lift the quarantine of one ("": of none)."""
    lifted(name="Quarantined replicas", replica=replica)


@deploy("Watchdog")
def status(port: int, notes: Sequence[str]) -> None:
    """Print the replicas of a host as its watchdog sees them; see `shown` for the parameters."""
    shown(name="Replicas as they are", port=port, notes=notes)
