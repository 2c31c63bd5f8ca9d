"""The stage that prints the fleet as it is."""

from pyinfra import host

from roles.declaration import GPU_HOSTS
from roles.stages.drained import show_drains
from roles.stages.run import Run
from roles.watchdog.deploy import status as watchdog_status


def status(run: Run) -> None:
    """Print this host's replicas as its watchdog sees them, what is drained, and what is
    quarantined."""
    show_drains(run)
    this_host = run.fleet.host(host.name)
    if GPU_HOSTS not in this_host.roles:
        return
    notes = []
    if this_host.drained:
        notes.append("drained by the inventory: balancers send it nothing")
    if this_host.retired:
        notes.append("retired by the inventory")
    watchdog_status(port=run.fleet.settings.watchdog.port, notes=tuple(notes))
