"""Runs the planned replicas on GPU hosts."""

from collections.abc import Callable, Sequence

from pyinfra import host
from pyinfra.api import State
from pyinfra.api.deploy import deploy

from roles.launch import operations
from roles.launch.host_launch import HostLaunch
from roles.launch.roll import Roll

_rolls: dict[State, Roll] = {}
_launches: dict[tuple[State, str], HostLaunch] = {}


def current_roll(balancers: Sequence[str]) -> Roll:
    """The one roll of this run: all hosts must see the same failures."""
    return _rolls.setdefault(host.state, Roll(host.state, frozenset(balancers)))


def current_launch(make: Callable[[], HostLaunch]) -> HostLaunch:
    """The one launch of this host in this run: what one step learns, the later ones go by."""
    key = (host.state, host.name)
    if key not in _launches:
        _launches[key] = make()
    return _launches[key]


@deploy("Launch")
def start(launch: HostLaunch, roll: Roll) -> None:
    """Start the replicas of a host where nothing serves yet; others are left to the roll."""
    operations.replicas(
        name="Start replicas where none serves", launch=launch, roll=roll, fresh_only=True
    )


@deploy("Launch")
def roll_over(launch: HostLaunch, roll: Roll, batch: Sequence[str]) -> None:
    """Move the replicas of a host in the batch to what is planned, one after the other."""
    operations.replicas(name=f"Roll over {', '.join(batch)}", launch=launch, roll=roll)


@deploy("Launch")
def serve(launch: HostLaunch, roll: Roll) -> None:
    """See that every replica of the host serves, now that its turn is over."""
    operations.serving(name="Replicas serve", launch=launch, roll=roll)
