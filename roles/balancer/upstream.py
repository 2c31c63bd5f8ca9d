"""Which replicas the balancer sends requests to, and why one is left out."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address

from roles.plan import Plan, Replica

UNSAFE = re.compile(r"[^A-Za-z0-9 .,:/()\[\]_=+-]+")
COMMENT_LENGTH = 120
DRAINED = "its host is drained"


@dataclass(frozen=True)
class Server:
    """One replica as the balancer sees it.

    `weight` is its part of the requests against the others'. `out` says why it gets no requests;
    `kept` why it ought to get none, but has to, because nothing better is left. Both are None for a
    good one, and one of them always is.
    """

    name: str
    address: str
    port: int
    weight: int = 1
    out: str | None = None
    kept: str | None = None

    @property
    def endpoint(self) -> str:
        """`address:port`, an IPv6 address in brackets."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"

    @property
    def comment(self) -> str:
        """The name and what is the matter, if anything: one line of plain ASCII."""
        if self.out:
            return plain(f"{self.name}: out, {self.out}")
        if self.kept:
            return plain(f"{self.name}: kept as nothing else is left, {self.kept}")
        return plain(self.name)


def replica_id(replica: Replica) -> str:
    """The name of a replica within the fleet."""
    return f"{replica.host}/{replica.name}"


def servers(
    plan: Plan,
    addresses: Mapping[str, str],
    drained: Collection[str],
    failures: Mapping[str, str],
) -> tuple[Server, ...]:
    """All replicas of the plan in its order, with those marked that get no requests.

    `addresses` are IP addresses by host, `drained` the hosts that the inventory declares so,
    `failures` the errors by replica id of completions that the balancer asked for. At least one
    server is always in. ValueError where the plan has no replica or an address is not an IP.
    """
    found = [_server(replica, addresses, drained, failures) for replica in plan.replicas]
    if not found:
        raise ValueError(f"the plan of {plan.service} has no replica: there is nothing to balance")
    if any(server.out is None for server in found):
        return tuple(found)
    only_failed = [server for server in found if server.out != DRAINED]
    return tuple(_keep(server) if server in (only_failed or found) else server for server in found)


def _server(
    replica: Replica,
    addresses: Mapping[str, str],
    drained: Collection[str],
    failures: Mapping[str, str],
) -> Server:
    name = replica_id(replica)
    out = None
    if replica.host in drained:
        out = DRAINED
    elif name in failures:
        out = f"its completion failed: {failures[name]}"
    address = _address(replica.host, addresses)
    return Server(name, address, replica.port, replica.weight, out)


def _keep(server: Server) -> Server:
    return replace(server, out=None, kept=server.out)


def _address(host: str, addresses: Mapping[str, str]) -> str:
    address = addresses.get(host, "")
    try:
        if "%" not in address:
            return str(ip_address(address))
    except ValueError:
        pass
    # nginx resolves names once, at its start, and does not start where one does not resolve.
    raise ValueError(f"{host}: its address {address!r} is no IP address: declare one")


def plain(text: str) -> str:
    """One short line of ASCII that can neither end a comment nor quote anything."""
    return " ".join(UNSAFE.sub(" ", text).split())[:COMMENT_LENGTH].rstrip()
