"""Conflicts between ports of one host, and ports that are out of range. Pure."""

from collections.abc import Iterator

from roles.balancer import own_ports
from roles.declaration import BALANCERS, FleetSettings
from roles.fleet.fleet import Host
from roles.launch import internal_ports
from roles.plan import Plan

LAST_PORT = 65535


def port_clashes(
    settings: FleetSettings, hosts: tuple[Host, ...], plans: tuple[Plan, ...]
) -> Iterator[str]:
    """Ports of one host on which two replicas, or a balancer and a replica, would listen."""
    for host in hosts:
        taken: dict[int, str] = {}
        if BALANCERS in host.roles and settings.balancer is not None:
            routes = [service.route for service in settings.services]
            ports = (settings.balancer.port, *own_ports(routes))
            taken.update(dict.fromkeys(ports, "the balancer"))
        own = [plan.on(host.name) for plan in plans]
        if any(plan and plan.replicas for plan in own):
            port = settings.watchdog.port
            if port in taken:
                yield f"watchdog.port: {port} is also {taken[port]}'s on {host.name}; set another"
            taken.setdefault(port, "the watchdog")
        for replica in (replica for plan in own if plan for replica in plan.placed):
            if not 1024 <= replica.port <= 65535:
                yield f"hosts[{host.name}].ports: {replica.port} is outside 1024-65535"
            or_watchdog = " or watchdog.port" if replica.port == settings.watchdog.port else ""
            if replica.port in taken:
                yield (
                    f"hosts[{host.name}].ports: {replica.name} and {taken[replica.port]} would "
                    f"both listen on {replica.port}; set ports of the host, or another "
                    f"services[].first_port{or_watchdog}"
                )
            taken.setdefault(replica.port, replica.name)


def internal_clashes(
    settings: FleetSettings, hosts: tuple[Host, ...], plans: tuple[Plan, ...]
) -> Iterator[str]:
    """Ports that are in the range that replicas' processes use among themselves, on any host."""
    # A host's list of GPUs may lack some of those that the driver counts.
    gpus = [gpu for host in hosts if host.hardware for gpu in host.hardware.gpus]
    most = max((gpu.index + 1 for gpu in gpus), default=1)
    first, last = (
        settings.launch.internal_ports_from,
        internal_ports(settings.launch, [most - 1])[1],
    )
    if last > LAST_PORT:
        yield (
            f"launch.internal_ports_from: {first} with {most} GPUs on a host goes up to {last}, "
            f"past {LAST_PORT}; set at most {first - (last - LAST_PORT)}"
        )
    inside = (
        f"is among the replicas' internal ports {first}-{last}; set another, or "
        "launch.internal_ports_from"
    )
    declared = {where: port for where, port in _declared(settings, hosts) if first <= port <= last}
    yield from (f"{where}: {port} {inside}" for where, port in declared.items())
    for number, plan in enumerate(plans) if not declared else ():
        for replica in plan.replicas:
            if first <= replica.port <= last:
                where = f"services[{number}].first_port: {replica.name} on {replica.host}"
                yield f"{where} would listen on {replica.port}, which {inside}"
                break


def _declared(settings: FleetSettings, hosts: tuple[Host, ...]) -> Iterator[tuple[str, int]]:
    """Each port in an inventory, with its place."""
    if settings.balancer is not None:
        yield "balancer.port", settings.balancer.port
    yield "watchdog.port", settings.watchdog.port
    for number, service in enumerate(settings.services):
        yield f"services[{number}].first_port", service.first_port
        if service.route.port is not None:
            yield f"services[{number}].route.port", service.route.port
    for host in hosts:
        for number, port in enumerate(host.ports or ()):
            yield f"hosts[{host.name}].ports[{number}]", port
