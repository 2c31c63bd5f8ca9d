"""The servers of HAProxy's backends. Pure."""

import re
from dataclasses import dataclass

from roles.balancer.state import BalancerState
from roles.balancer.upstreams import Server, servers

# HAProxy takes no larger weight.
MAX_WEIGHT = 256
AGENT_INTERVAL_S = 2
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class BackendServer:
    """A line `server` of a backend."""

    name: str
    endpoint: str
    weight: int
    options: str
    comment: str


@dataclass(frozen=True)
class Backend:
    """A service's backend; `retries` is how often a request goes on to another server."""

    name: str
    retries: int
    servers: tuple[BackendServer, ...]


def backends(state: BalancerState) -> tuple[Backend, ...]:
    """The backends of a state, with every member."""
    return tuple(
        _backend(upstream.name, servers(upstream, state.drains)) for upstream in state.upstreams
    )


def drain_commands(state: BalancerState) -> str:
    """The commands, one a line, by which a running worker sends nothing more to members that are
    out."""
    return "".join(
        f"set server {upstream.name}/{_name(server.member.id)} state maint\n"
        for upstream in state.upstreams
        for server in servers(upstream, state.drains)
        if server.out
    )


def _backend(name: str, members: tuple[Server, ...]) -> Backend:
    inside = sum(server.out is None for server in members)
    most = max((server.member.weight for server in members), default=1)
    return Backend(
        name,
        # Two dead servers take turns until they are marked as down.
        2 * max(inside - 1, 0),
        tuple(
            BackendServer(
                _name(server.member.id),
                server.member.endpoint,
                _weight(server.member.weight, most),
                _options(server, inside > 1),
                server.comment,
            )
            for server in members
        ),
    )


def _name(id: str) -> str:
    return _NOT_IN_NAMES.sub(":", id)


def _weight(weight: int, most: int) -> int:
    """A weight in proportion to the largest, within HAProxy's bounds."""
    return weight if most <= MAX_WEIGHT else max(1, round(weight * MAX_WEIGHT / most))


def _options(server: Server, checked: bool) -> str:
    """The options after a server's weight.

    A drained one has no agent: its `ready` would end the drain. The only one is never marked as
    down, so it is not checked.
    """
    if server.out:
        return " disabled"
    check = " check" if checked else ""
    port, name = server.member.agent_port, server.member.id.partition("/")[2]
    if port is None:
        return check
    # One agent answers for all replicas of a host.
    asked = f'agent-send "{_NOT_IN_NAMES.sub("", name)}\\n"'
    return f"{check} agent-check agent-port {port} agent-inter {AGENT_INTERVAL_S}s {asked}"
