"""The stage that sets balancers up in front of all replicas."""

from functools import partial

from pyinfra import host

from roles.balancer.deploy import balancer
from roles.declaration import BALANCERS
from roles.fleet import routes
from roles.stages.drained import people_drains
from roles.stages.run import Run


def balancers(run: Run) -> None:
    """Set this host's balancer up with a route for each service."""
    settings, this_host = run.fleet.settings.balancer, run.fleet.host(host.name)
    if BALANCERS not in this_host.roles or settings is None:
        return
    balancer(
        settings=settings,
        routes=routes(run.fleet),
        own_address=this_host.address,
        balancers=[one.address for one in run.fleet.with_role(BALANCERS)],
        run_id=run.id,
        seen=run.seen.proved,
        taken_down=lambda: run.rolling.moved,
        people=partial(people_drains, run),
        note=partial(run.balancers.__setitem__, host.name),
    )
