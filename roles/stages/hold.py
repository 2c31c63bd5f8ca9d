"""The stage that holds a host for a run."""

from functools import partial

from pyinfra import host

from roles.host.operations import held
from roles.stages.run import Run


def hold(run: Run) -> None:
    """Hold this host until the run ends: no other run changes it, and its watchdog pauses."""
    held(
        name="No other deploy is at work",
        run=run.id,
        known=partial(run.leases.get, host.name),
        keep=partial(run.leases.__setitem__, host.name),
        on_busy=partial(run.busy.add, host.name),
    )
