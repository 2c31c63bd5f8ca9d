"""From a fleet's plans to what each host is to run. Pure, but for the files of keys."""

from roles.declaration import BALANCERS, Service
from roles.engine import Served, deployment
from roles.fleet.fleet import Fleet, Host
from roles.launch import Assignment, HostLaunch
from roles.plan import Replica
from roles.topology import ServiceSettings


def host_launch(fleet: Fleet, name: str) -> HostLaunch:
    """All that a host is to run, of every service; nothing on a retired one."""
    host = fleet.host(name)
    assignments = tuple(
        _assignment(fleet, host, service, replica)
        for service, plan in fleet.on(name)
        for replica in plan.replicas
    )
    balancers = tuple(other.address for other in fleet.with_role(BALANCERS))
    return HostLaunch(assignments, fleet.settings.launch, host.address, balancers)


def _assignment(fleet: Fleet, host: Host, service: Service, replica: Replica) -> Assignment:
    build = fleet.engine_of(host.name, service.name)
    return Assignment(
        replica=replica,
        engine=build.kind,
        deployment=deployment(build),
        build=build,
        served=served(service),
        key=fleet.settings.keys(service).engine or "",
        devices=host.devices,
    )


def served(service: ServiceSettings) -> Served:
    """What an engine must know of a service.

    The recorded commit is the model's own: other weights than its own on the hub have another.
    """
    own = service.weights in (None, service.model.name)
    return Served(
        model=service.model.name,
        weights=service.weights or service.model.name,
        min_concurrency=service.min_concurrency,
        arguments=service.arguments,
        kv_cache_memory_bytes=service.kv_cache_memory_bytes,
        revision=service.model.revision if own else None,
    )
