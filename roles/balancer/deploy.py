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


@deploy("Balancer")
def balancer(
    settings: BalancerSettings,
    routes: Sequence[Route],
    own_address: str,
    run_id: str,
    seen: Callable[[Collection[str], bool], None] = lambda ids, serve: None,
    taken_down: Callable[[], Collection[str]] = tuple,
    people: Callable[[], Collection[Drain]] = tuple,
    note: Callable[[BalancerState], None] = lambda state: None,
) -> None:
    """Set a balancer up, at the end of a deploy.

    Drains of a rolling update end here, and only here keys change. A self-signed certificate names
    `own_address` too. `seen` takes the ids of replicas, and whether they gave a token.
    `taken_down` gives the ids of replicas that this run took down, `people` what people have
    drained on any balancer; `note` takes the state that was found on this one.
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
        names = (settings.server_name, *server_names(routes), own_address)
        operations.make_certificate(
            name="Make a self-signed certificate",
            deployment=deployment,
            names=alternative_names(*names),
        )
    operations.write_site(
        name="Write the site with the replicas that answer", deployment=deployment
    )
    operations.run_program(name=f"Run {settings.program} with these files", deployment=deployment)
