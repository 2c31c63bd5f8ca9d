"""Settings and hosts that contradict each other: who shares what cannot be shared. Pure, except
that paths are looked up."""

import os
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

from roles.balancer import read_key
from roles.declaration import BALANCERS, ROLES, Declaration, FleetSettings
from roles.fleet.fleet import Host
from roles.fleet.known_hosts import SSH_PORT
from roles.plan import Plan


def shared_keys(settings: FleetSettings, secrets: bool) -> Iterator[str]:
    """Keys that clients and engines would share, though a balancer stands between them; by their
    files, and with `secrets` by what these hold."""
    if settings.balancer is None:
        return
    routes = {f"services[{n}].route": one.route for n, one in enumerate(settings.services)}
    for place, own in {"balancer": settings.balancer, **routes}.items():
        clients = own.api_key_file or settings.balancer.api_key_file
        engines = own.engine_key_file or settings.balancer.engine_key_file
        given = own.api_key_file or own.engine_key_file
        if given and engines and _same_key(clients, engines, secrets):
            yield (
                f"{place}.engine_key_file: {engines} is also the key of clients, who must not "
                "reach the engines; name another file, or leave it out"
            )


def _same_key(first: Path, second: Path, secrets: bool) -> bool:
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    # Both were read when their settings were checked.
    return secrets and read_key(first) == read_key(second)


def shared_endpoints(declaration: Declaration) -> Iterator[str]:
    """Hosts that ssh reaches at the same name and port: they are one machine."""
    seen: dict[tuple[str, int], str] = {}
    for name, host in declaration.hosts.items():
        if name.startswith("@"):
            continue
        at = (host.ssh_address.lower(), host.ssh.get("ssh_port", SSH_PORT))
        if at in seen:
            yield (
                f"hosts[{name}].ssh_hostname: {at[0]}, port {at[1]}, is also that of {seen[at]}; "
                "give each host its own, or put one host into both groups"
            )
        seen.setdefault(at, name)


def virtual_address_problems(
    declaration: Declaration, settings: FleetSettings | None, hosts: Sequence[Host]
) -> Iterator[str]:
    """A virtual address that a host has already, or that balancers cannot share."""
    balancer = settings.balancer if settings else None
    shared = balancer.virtual_address if balancer else None
    if shared is None:
        return
    place = f"balancer.virtual_address: {shared}"
    for host in hosts:
        try:
            address = ip_address(host.address)
        except ValueError:
            # It is told elsewhere.
            continue
        if address == shared or declaration.hosts[host.name].ssh_address == str(shared):
            yield f"{place} is {host.name}'s own; name a free address of the balancers' network"
        elif BALANCERS in host.roles and address.version != shared.version:
            yield (
                f"{place} is of IPv{shared.version}, and {host.name}'s own of "
                f"IPv{address.version}; name one of the same kind"
            )


def names_of_groups(declaration: Declaration) -> Iterator[str]:
    """Hosts that are called as a group, which --limit and --exclude would take them for."""
    groups = {*ROLES, "all", *(name for one in declaration.hosts.values() for name in one.groups)}
    # In an inventory of one host, the file's own name means the same.
    groups -= {declaration.name} if len(declaration.hosts) == 1 else set()
    # pyinfra gives hosts of a connector (`@local`) a group of their name.
    for name in (one for one in declaration.hosts if one in groups and not one.startswith("@")):
        yield (
            f"hosts[{name}]: {name} is also a group, and --limit {name} would mean the group; name "
            "the host otherwise"
        )


def shared_user(declaration: Declaration, settings: FleetSettings | None) -> Iterator[str]:
    """The engines' user, where it is also the one that deploys, who may become root."""
    users = {host.ssh.get("ssh_user"): name for name, host in declaration.hosts.items()}
    if settings is not None and settings.launch.user in users:
        user = settings.launch.user
        yield (
            f"launch.user: {user} is also hosts[{users[user]}].ssh_user, who has sudo; name "
            "another user for the engines, it will be made"
        )


def ignored_routes(settings: FleetSettings) -> Iterator[str]:
    """Ways to a service through a balancer, where there is none."""
    for number, service in enumerate(settings.services if settings.balancer is None else ()):
        for name in ("path_prefix", "server_name", "port"):
            if getattr(service.route, name) is not None:
                yield (
                    f"services[{number}].route.{name}: there is no balancer, which would serve it; "
                    "leave it out"
                )


def ssh_port_problems(
    declaration: Declaration,
    settings: FleetSettings,
    hosts: tuple[Host, ...],
    plans: Sequence[Plan],
) -> Iterator[str]:
    """Ports of balancers and replicas at which ssh itself listens on the same host."""
    for host in hosts:
        port = declaration.hosts[host.name].ssh.get("ssh_port", SSH_PORT)
        used: dict[int, str] = {}
        for plan in plans:
            own = plan.on(host.name)
            used |= {one.port: one.name for one in own.placed} if own else {}
        if used:
            used[settings.watchdog.port] = "watchdog.port"
        if BALANCERS in host.roles and settings.balancer is not None:
            routes = {n: one.route.port for n, one in enumerate(settings.services)}
            used |= {p: f"services[{n}].route.port" for n, p in routes.items() if p is not None}
            used[settings.balancer.port] = "balancer.port"
        if port in used:
            yield (
                f"hosts[{host.name}].ssh_port: {used[port]} is {port}, too, where ssh listens; set "
                "another port for it"
            )


def shared_addresses(hosts: tuple[Host, ...]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for host in hosts:
        if len(hosts) > 1 and ip_address(host.address).is_loopback:
            yield (
                f"hosts[{host.name}].address: {host.address} reaches nobody but the host itself; "
                "give the one by which the other hosts reach it"
            )
        if host.address in seen:
            yield (
                f"hosts[{host.name}].address: {host.address} is also that of "
                f"{seen[host.address]}; give each host its own"
            )
        seen.setdefault(host.address, host.name)
