"""Addresses by which the hosts of one replica cannot reach each other. Pure."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from roles.fleet.fleet import Host
from roles.plan import Plan


def member_address_problems(hosts: Sequence[Host], plans: Sequence[Plan]) -> Iterator[str]:
    """Each problem of `members_address`, of a host or of a replica over several, with a remedy."""
    own = {host.name: host.own_members_address for host in hosts if host.own_members_address}
    known = {host.address: host.name for host in hosts}
    for host in hosts:
        if mine := own.get(host.name):
            yield from _of_one(host, mine, known)
            known.setdefault(mine, host.name)
    by_name = {host.name: host for host in hosts}
    groups = (replica for plan in plans for replica in plan.replicas if replica.members)
    for hosts_of_one in dict.fromkeys(replica.hosts for replica in groups):
        yield from _of_group([by_name[name] for name in hosts_of_one])


def _of_one(host: Host, mine: str, known: dict[str, str]) -> Iterator[str]:
    where = f"hosts[{host.name}].members_address: {mine}"
    address = ip_address(mine)
    if address.is_loopback:
        yield f"{where} reaches nobody but the host itself; give one of a network between hosts"
    elif known.get(mine, host.name) != host.name:
        yield f"{where} is also that of {known[mine]}; give each host its own"
    if address.version != ip_address(host.address).version:
        yield (
            f"{where} is of IPv{address.version}, and the host's address of "
            f"IPv{ip_address(host.address).version}; engines listen on one kind: name one of it"
        )


def _of_group(hosts: Sequence[Host]) -> Iterator[str]:
    """What keeps the hosts of one replica from meeting."""
    names = ", ".join(host.name for host in hosts)
    lacking = [host.name for host in hosts if not host.own_members_address]
    if lacking and len(lacking) < len(hosts):
        yield (
            f"hosts[{lacking[0]}].members_address: there is none, and other hosts of its replica "
            f"({names}) have one; give it to all of them, or to none"
        )
    kinds = {ip_address(host.address).version for host in hosts}
    if len(kinds) > 1:
        yield (
            f"hosts[{hosts[0].name}].address: {names} run one replica, and their addresses are of "
            "IPv4 and IPv6; give all of them addresses of one kind"
        )
