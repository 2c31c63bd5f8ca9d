"""Sets a balancer up in front of all replicas of all services."""

from collections.abc import Callable, Collection, Sequence

from pyinfra.api.deploy import deploy

from roles.balancer import operations
from roles.balancer.certificate import alternative_names
from roles.balancer.deployment import BalancerDeployment
from roles.balancer.drains import Drain
from roles.balancer.kinds import balancer_of
from roles.balancer.routes import Route, server_names
from roles.balancer.settings import BalancerSettings
from roles.balancer.state import BalancerState
from roles.balancer.virtual_address.operations import virtual_address
from roles.balancer.virtual_address.render import VirtualAddress


@deploy("Balancer")
def balancer(
    settings: BalancerSettings,
    routes: Sequence[Route],
    own_address: str,
    balancers: Sequence[str],
    run_id: str,
    seen: Callable[[Collection[str], bool], None] = lambda ids, serve: None,
    taken_down: Callable[[], Collection[str]] = tuple,
    people: Callable[[], Collection[Drain]] = tuple,
    note: Callable[[BalancerState], None] = lambda state: None,
) -> None:
    """Set a balancer up, at the end of a deploy.

    Drains of a rolling update end here, and only here keys change. A self-signed certificate names
    `own_address` too. `balancers` are the addresses of all of them. `seen` takes the ids of
    replicas, and whether they gave a token. `taken_down` gives the ids of replicas that this run
    took down, `people` what people have drained on any balancer; `note` takes the state that was
    found on this one.
    """
    deployment = BalancerDeployment(
        *(balancer_of(settings), settings, routes, run_id),
        taken_down=taken_down,
        people=people,
        note=note,
    )
    operations.install(name=f"Install {settings.program} and what it needs", deployment=deployment)
    operations.probe_members(name="Ask every replica for a token", deployment=deployment, seen=seen)
    if settings.certificate_file is None:
        shared = [str(settings.virtual_address)] if settings.virtual_address else []
        names = (settings.server_name, *server_names(routes), own_address, *shared)
        operations.make_certificate(
            name="Make a self-signed certificate",
            deployment=deployment,
            names=alternative_names(*names),
        )
    operations.write_site(
        name="Write the site with the replicas that answer", deployment=deployment
    )
    operations.run_program(name=f"Run {settings.program} with these files", deployment=deployment)
    address = str(settings.virtual_address) if settings.virtual_address else ""
    virtual_address(
        name="Balancers share an address" if address else "Balancers share no address",
        deployment=deployment,
        wanted=VirtualAddress(address, own_address, balancers, settings.port) if address else None,
    )
