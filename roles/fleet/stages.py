"""The stages of a deploy on one host: each hands a role what it needs of the fleet."""

from roles.balancer.deploy import balancer
from roles.engine.deploy import install
from roles.fleet.fleet import BALANCERS, GPU_HOSTS, Fleet, Host
from roles.launch.deploy import replicas


def engines(fleet: Fleet, host: Host) -> None:
    """Install the engine and run the planned replicas, on a GPU host."""
    if GPU_HOSTS not in host.roles:
        return
    install(settings=host.engine)
    replicas(
        settings=fleet.settings.launch,
        service=fleet.service,
        engine=host.engine,
        plan=fleet.plan,
        address=host.address,
        balancers=[other.address for other in fleet.having(BALANCERS)],
        engine_key=fleet.settings.balancer.engine_key,
    )


def balancers(fleet: Fleet, host: Host) -> None:
    """Put nginx in front of the replicas of all hosts, on a balancer."""
    if BALANCERS not in host.roles:
        return
    balancer(
        settings=fleet.settings.balancer,
        plan=fleet.plan,
        addresses=fleet.addresses,
        drained=fleet.drained,
        own_address=host.address,
        model_name=fleet.plan.model,
    )
