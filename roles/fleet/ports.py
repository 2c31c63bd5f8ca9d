"""Conflicts between ports of one host, and ports that are out of range. Pure."""

from collections.abc import Iterator, Sequence

from roles.balancer import own_ports
from roles.declaration import BALANCERS, Declaration, FleetSettings
from roles.fleet.fleet import Host
from roles.fleet.known_hosts import SSH_PORT
from roles.launch import GIVEN_PORTS, internal_ports
from roles.plan import Plan, Replica

LAST_PORT = 65535
_FIRST_GIVEN, _LAST_GIVEN = map(int, GIVEN_PORTS.split("-"))


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
            # A part's port is that of its head.
            at, where = f"hosts[{replica.host}].ports", _on_other(host, replica)
            if not 1024 <= replica.port <= 65535 and not where:
                yield f"{at}: {replica.port} is outside 1024-65535"
            or_watchdog = " or watchdog.port" if replica.port == settings.watchdog.port else ""
            if replica.port in taken:
                yield (
                    f"{at}: {replica.name} and {taken[replica.port]} would both listen on "
                    f"{replica.port}{where}; set ports of {replica.host}, or another "
                    f"services[].first_port{or_watchdog}"
                )
            taken.setdefault(replica.port, replica.name)


def _on_other(host: Host, replica: Replica) -> str:
    return "" if replica.host == host.name else f" of {host.name}"


def unused_ports(hosts: Sequence[Host], plans: Sequence[Plan]) -> Iterator[str]:
    """Ports of hosts that run only parts of replicas, whose ports are those of their heads."""
    for host in hosts:
        own = [plan for plan in (plan.on(host.name) for plan in plans) if plan]
        heads = dict.fromkeys(part.host for plan in own for part in plan.parts)
        if host.ports is not None and heads and not any(plan.replicas for plan in own):
            yield (
                f"hosts[{host.name}].ports: its replicas answer on {', '.join(heads)}, by the "
                "ports there; set ports of that host, and leave these out"
            )


def shut_ports(
    declaration: Declaration,
    settings: FleetSettings,
    hosts: Sequence[Host],
    plans: Sequence[Plan],
) -> Iterator[str]:
    """Ports that the firewall would shut on hosts of a replica over several: they are among those
    that the kernel gives, which its hosts alone reach."""
    for host in hosts if settings.launch.firewall else ():
        own = [plan for plan in (plan.on(host.name) for plan in plans) if plan]
        if not any(replica.members for plan in own for replica in plan.placed):
            continue
        ssh_port = declaration.hosts[host.name].ssh.get("ssh_port", SSH_PORT)
        for where, port in _listening(host, ssh_port, settings):
            if _FIRST_GIVEN <= port <= _LAST_GIVEN:
                yield (
                    f"{where}: nobody but hosts of its replica reaches a port of {GIVEN_PORTS} on "
                    f"{host.name}, and {port} is one; set another"
                )


def _listening(host: Host, ssh_port: int, settings: FleetSettings) -> Iterator[tuple[str, int]]:
    """Ports of a GPU host that others than hosts of its replicas reach, each with its place;
    without those of engines, which have rules of their own."""
    yield f"hosts[{host.name}].ssh_port", ssh_port
    yield "watchdog.port", settings.watchdog.port
    if BALANCERS in host.roles and settings.balancer is not None:
        yield "balancer.port", settings.balancer.port
        for number, service in enumerate(settings.services):
            if service.route.port is not None:
                yield f"services[{number}].route.port", service.route.port


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
