"""Members of upstreams, written shortly."""

from roles.rolling import Member


def member(id: str, service: str = "chat", *, serves: bool = True, drained: str = "") -> Member:
    """A replica by its id; "a+b/q" runs on the hosts a and b."""
    hosts = id.partition("/")[0].split("+")
    return Member(id, service, tuple(hosts), serves, frozenset(drained.split()))


def members(*ids: str, service: str = "chat") -> list[Member]:
    return [member(id, service) for id in ids]
