"""Settings of the route to a service, and which routes are in conflict. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from roles.balancer.files import read_key
from roles.balancer.routes import Match
from roles.balancer.settings import SERVER_NAME, BalancerSettings, needs_secrets
from roles.host import LocalFile, PublicPort, StrictSettings, check_host_name

SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# The balancer's own paths: a prefix with one of them would overlap with another route.
RESERVED = ("v1", "health")


class RouteSettings(StrictSettings):
    """How clients reach one service: `/v1/` of the endpoint, or one of prefix, name and port."""

    path_prefix: Annotated[str, StringConstraints(max_length=128)] | None = Field(
        default=None,
        description="path before /v1/: with /chat the service is at /chat/v1/; / is the endpoint's "
        "own /v1/",
    )
    server_name: str | None = Field(
        default=None, description="DNS name of its own, on the balancer's port"
    )
    port: PublicPort | None = Field(
        default=None, description="port of its own on the balancers, TLS only"
    )
    api_key_file: LocalFile | None = Field(
        default=None, description="file with the key of its clients; the balancer's unless said"
    )
    engine_key_file: LocalFile | None = Field(
        default=None, description="file with the key of its engines; the balancer's unless said"
    )

    @field_validator("path_prefix")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value in (None, "/"):
            return value
        if not value:
            raise ValueError("is empty; give a path such as /chat, or leave it out")
        segments = value.removesuffix("/").split("/")
        if segments[0] or not all(map(SEGMENT.fullmatch, segments[1:])):
            raise ValueError(f"{value!r} is not a path such as /chat")
        for segment in segments[1:]:
            if segment in RESERVED:
                raise ValueError(f"{value} holds /{segment}, which the balancer serves itself")
        return value.removesuffix("/")

    @field_validator("server_name")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and (name == "_" or not SERVER_NAME.fullmatch(name)):
            raise ValueError(f"{name!r} is not a DNS name: give one such as chat.example.com")
        return name and check_host_name(name.removeprefix("*."), name).lower()

    @field_validator("api_key_file", "engine_key_file")
    @classmethod
    def _holds_a_key(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and needs_secrets(info):
            read_key(path)
        return path

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = ("path_prefix", "server_name", "port")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: leave one")
        return self

    @property
    def match(self) -> Match:
        """Which requests are the service's."""
        return Match(self.path_prefix or "/", self.server_name, self.port)


def route_conflicts(routes: Mapping[int, RouteSettings], balancer: BalancerSettings) -> list[str]:
    """The conflicts between routes of one balancer, each with its place and a remedy.

    `routes` are by the number of their service in the inventory.
    """
    taken: dict[tuple[str | None, int, str], int] = {}
    problems = []
    for number, route in routes.items():
        match = route.match
        name = match.server_name or balancer.server_name
        key = (name.lower(), match.port or balancer.port, match.path_prefix)
        if match.server_name and key[0] == balancer.server_name.lower():
            problems.append(
                f"services[{number}].route: {name} is balancer.server_name; leave it out, or give "
                "the service a name of its own"
            )
        elif match.port == balancer.port:
            problems.append(
                f"services[{number}].route: {match.port} is balancer.port; leave it out, or give "
                "the service a port of its own"
            )
        elif key in taken:
            problems.append(
                f"services[{number}].route: {_description(match)} is services[{taken[key]}]'s; "
                "give one of them another path_prefix, server_name or port"
            )
        taken.setdefault(key, number)
    return problems


def own_ports(routes: Sequence[RouteSettings]) -> Iterator[int]:
    """The ports of services that have a port of their own on the balancers."""
    return (route.port for route in routes if route.port is not None)


def _description(match: Match) -> str:
    if match.server_name:
        return match.server_name
    return f"port {match.port}" if match.port else match.location


@dataclass(frozen=True)
class Keys:
    """The key that clients of a service send, and the one that its engines expect; None where there
    is none."""

    client: str | None = field(repr=False)
    engine: str | None = field(repr=False)


def keys_of(route: RouteSettings, balancer: BalancerSettings | None) -> Keys:
    """The keys of a service: its own, else the balancer's.

    Without a balancer clients reach the engines directly, so one key serves both. With a balancer
    the engines have another key than clients; ValueError where it is missing.
    """
    clients = route.api_key_file or (balancer and balancer.api_key_file)
    engines = route.engine_key_file or (balancer.engine_key_file if balancer else clients)
    if balancer is not None and engines is None:
        raise ValueError("balancer.engine_key_file: is missing; name the file of the engines' key")
    return Keys(clients and read_key(clients), engines and read_key(engines))


def base_url(
    settings: BalancerSettings, match: Match, address: str, endpoint: str | None = None
) -> str:
    """The URL before /v1/ by which clients reach a service through the balancer at an IP address.

    `endpoint` replaces the balancer's own name or address. The server's name is used only with a
    certificate from the inventory.
    """
    if endpoint is None or match.server_name or match.port:
        named = settings.certificate_file is not None and settings.server_name != "_"
        own = settings.server_name if named else f"[{address}]" if ":" in address else address
        endpoint = f"https://{match.server_name or own}:{match.port or settings.port}"
    return endpoint + match.path_prefix.rstrip("/")
