"""Which members of an upstream get requests, and why one gets none. Pure."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from roles.balancer.drains import Drain, covered
from roles.balancer.routes import Member

UNSAFE = re.compile(r"[^A-Za-z0-9 .,:/()\[\]_=+-]+")
COMMENT_LENGTH = 120
# Owners are recorded in state.json alone: another owner must not change the upstreams' file.
DRAINED = "drained"


@dataclass(frozen=True)
class Upstream:
    """The members of one service, and why some of them failed, by id."""

    service: str
    name: str
    members: tuple[Member, ...]
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    """A member of an upstream, and whether it gets requests.

    `out` says why it gets none. `kept` says why it should get none, but does, because its upstream
    would be empty without it. Both are None for a healthy member; at most one is set.
    """

    member: Member
    out: str | None = None
    kept: str | None = None

    @property
    def comment(self) -> str:
        """The member's id and its problem, if any, as one line of ASCII."""
        if self.out:
            return one_line(f"{self.member.id}: out, {self.out}")
        if self.kept:
            return one_line(f"{self.member.id}: kept as nothing else is left, {self.kept}")
        return one_line(self.member.id)


def servers(upstream: Upstream, drains: Collection[Drain]) -> tuple[Server, ...]:
    """All members in order, with those marked that get no requests.

    At least one always gets requests, unless a drain announced the interruption: failed members are
    kept where all others are drained or failed, and drained ones where there are no others.
    """
    own = [drain for drain in drains if covered(upstream.members, [drain.replica])]
    drained = {member.id for member in covered(upstream.members, [one.replica for one in own])}
    found = [_server(member, drained, upstream.failures) for member in upstream.members]
    if any(server.out is None for server in found):
        return tuple(found)
    kept = {member.id for member in upstream.members} - drained
    if not kept and not any(drain.interruption for drain in own):
        kept = drained
    return tuple(
        _as_last_resort(server) if server.member.id in kept else server for server in found
    )


def healthy(upstream: Upstream, drains: Collection[Drain]) -> set[str]:
    """The ids of members that get requests and are neither failed nor drained."""
    found = servers(upstream, drains)
    return {server.member.id for server in found if not server.out and not server.kept}


def _server(member: Member, drained: Collection[str], failures: Mapping[str, str]) -> Server:
    out = None
    if member.id in drained:
        out = DRAINED
    elif member.id in failures:
        out = f"its completion failed: {failures[member.id]}"
    return Server(member, out)


def _as_last_resort(server: Server) -> Server:
    return replace(server, out=None, kept=server.out)


def one_line(text: str) -> str:
    """A text as one short line of ASCII, which is safe within a comment of a
    configuration."""
    return " ".join(UNSAFE.sub(" ", text).split())[:COMMENT_LENGTH].rstrip()
