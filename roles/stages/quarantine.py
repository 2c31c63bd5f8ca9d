"""The stage that shows quarantined replicas and lifts a quarantine."""

from pyinfra import host

from roles.declaration import GPU_HOSTS
from roles.fleet import LIFT
from roles.stages.run import Run
from roles.watchdog.deploy import lift


def quarantine(run: Run) -> None:
    """Show this host's quarantined replicas; `--data lift=HOST/REPLICA` lets one start again."""
    if GPU_HOSTS not in run.fleet.host(host.name).roles:
        return
    # The command line was checked: it is the name of a replica.
    wanted_host, _, replica = str(host.data.get(LIFT) or "").partition("/")
    lift(replica=replica if wanted_host == host.name else "")
