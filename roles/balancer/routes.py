"""Routes: how a balancer serves each service, and by which members. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from roles.plan import Task

UPSTREAM_PREFIX = "llm_"


@dataclass(frozen=True)
class Member:
    """One replica behind a balancer; its `id` is "HOST/NAME".

    It gets a share of the requests in proportion to its `weight`. At `agent_port` its host answers
    a balancer that asks for its health; None where nobody answers. `gpus` are those of its host
    that it uses, None where that is not known. `others` are the other hosts of a replica over
    several, with the GPUs of each. ValueError where `address` is no IP address.
    """

    id: str
    host: str
    address: str
    port: int
    weight: int = 1
    agent_port: int | None = None
    gpus: tuple[int, ...] | None = None
    others: tuple[tuple[str, tuple[int, ...]], ...] | None = None

    @property
    def places(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Every host that it runs on, with the GPUs that it is known to use there."""
        return ((self.host, self.gpus or ()), *(self.others or ()))

    def __post_init__(self) -> None:
        try:
            if "%" not in self.address:
                ip_address(self.address)
                return
        except ValueError:
            pass
        # Balancers resolve names only at their start, and fail to start where they cannot.
        raise ValueError(f"{self.host}: its address {self.address!r} is no IP address: declare one")

    @property
    def endpoint(self) -> str:
        """`address:port`, an IPv6 address in brackets."""
        address = ip_address(self.address)
        return f"[{address}]:{self.port}" if address.version == 6 else f"{address}:{self.port}"


@dataclass(frozen=True)
class Match:
    """Which requests belong to a service: those to `/v1/` below a path prefix, to a server name, or
    to a port.

    Without `server_name` and `port` the endpoint's own apply.
    """

    path_prefix: str = "/"
    server_name: str | None = None
    port: int | None = None

    @property
    def location(self) -> str:
        """The path below which requests belong to the service: "/v1/", "/chat/v1/"."""
        return f"{self.path_prefix.rstrip('/')}/v1/"


@dataclass(frozen=True)
class Route:
    """One service as a balancer serves it.

    `model` is the name under which its engines serve the model, `task` what they do with a text,
    `api_key` the key that clients send, `engine_key` the key that engines expect (None: none),
    `drained` the ids of members that the inventory drains.
    """

    service: str
    model: str
    members: tuple[Member, ...]
    match: Match = Match()
    api_key: str = field(repr=False, kw_only=True)
    engine_key: str | None = field(repr=False, default=None, kw_only=True)
    drained: frozenset[str] = frozenset()
    task: Task = "generate"

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError(
                f"the plan of {self.service} has no replica: there is nothing to balance"
            )

    @property
    def upstream(self) -> str:
        """The name of its upstream."""
        return upstream_name(self.service)


def upstream_name(service: str) -> str:
    """The name of a service's upstream on every balancer."""
    return f"{UPSTREAM_PREFIX}{service}"


def server_names(routes: Sequence[Route]) -> tuple[str, ...]:
    """The server names of services that have one of their own, in order."""
    return tuple(dict.fromkeys(r.match.server_name for r in routes if r.match.server_name))
