"""Which members of an upstream get requests, and why one gets none. Pure."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from roles.balancer.routes import Member

UNSAFE = re.compile(r"[^A-Za-z0-9 .,:/()\[\]_=+-]+")
COMMENT_LENGTH = 120
# By whom is in state.json: one owner more must not change the file.
DRAINED = "drained"


@dataclass(frozen=True)
class Upstream:
    """The members of one service as they were last written, and why some failed, by their id."""

    service: str
    name: str
    members: tuple[Member, ...]
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Drain:
    """A member that gets no requests because its `owner` (see `state.Owner`) wants so.

    `run` is the run that began it, `since` when (ISO 8601). `interruption` says that the upstream
    may have no other member: the interruption was announced.
    """

    replica: str
    owner: str
    run: str
    since: str
    interruption: bool = False


@dataclass(frozen=True)
class Server:
    """A member with its part of the requests.

    `out` says why it gets none; `kept` why it ought to get none, but has to, because nothing better
    is left. Both are None for a good one, and one of them always is.
    """

    member: Member
    out: str | None = None
    kept: str | None = None

    @property
    def comment(self) -> str:
        """The id and what is the matter, if anything: one line of plain ASCII."""
        if self.out:
            return one_line(f"{self.member.id}: out, {self.out}")
        if self.kept:
            return one_line(f"{self.member.id}: kept as nothing else is left, {self.kept}")
        return one_line(self.member.id)


def servers(upstream: Upstream, drains: Collection[Drain]) -> tuple[Server, ...]:
    """All members in their order, with those marked that get no requests.

    At least one is always in, unless a drain of one of them announced the interruption: failed ones
    are kept rather than none, and drained ones where nothing else is there at all.
    """
    own = [drain for drain in drains if drain.replica in {m.id for m in upstream.members}]
    drained = {drain.replica for drain in own}
    found = [_server(member, drained, upstream.failures) for member in upstream.members]
    if any(server.out is None for server in found):
        return tuple(found)
    kept = {member.id for member in upstream.members} - drained
    if not kept and not any(drain.interruption for drain in own):
        kept = drained
    return tuple(_keep(server) if server.member.id in kept else server for server in found)


def healthy(upstream: Upstream, drains: Collection[Drain]) -> set[str]:
    """The ids of the members that are in, and not for want of better ones."""
    found = servers(upstream, drains)
    return {server.member.id for server in found if not server.out and not server.kept}


def _server(member: Member, drained: Collection[str], failures: Mapping[str, str]) -> Server:
    out = None
    if member.id in drained:
        out = DRAINED
    elif member.id in failures:
        out = f"its completion failed: {failures[member.id]}"
    return Server(member, out)


def _keep(server: Server) -> Server:
    return replace(server, out=None, kept=server.out)


def one_line(text: str) -> str:
    """One short line of ASCII that can neither end a comment nor quote anything."""
    return " ".join(UNSAFE.sub(" ", text).split())[:COMMENT_LENGTH].rstrip()
