"""The sites of a balancer: its names and ports, and the services that are there. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from roles.balancer.routes import Route

ERRORS = {
    401: ("The API key is missing or wrong.", "invalid_request_error", "invalid_api_key"),
    404: ("There is nothing at this address.", "invalid_request_error", "not_found"),
    413: ("The request is too large.", "invalid_request_error", "request_too_large"),
    502: ("No replica could answer.", "server_error", "bad_gateway"),
    504: ("The replica did not answer in time.", "server_error", "timeout"),
}


@dataclass(frozen=True)
class Location:
    """One route within a site: requests below `path` ("/chat/v1/") go to `upstream`."""

    path: str
    service: str
    upstream: str

    @property
    def prefix(self) -> str:
        """What engines do not know of `path`: "/chat", or nothing."""
        return self.path.removesuffix("/v1/")

    @property
    def target(self) -> str:
        """The upstream's URL in place of `path`, or of nothing where `path` stays as it is."""
        return f"http://{self.upstream}" + ("" if self.path == "/v1/" else "/v1/")


@dataclass(frozen=True)
class Site:
    """A name and a port, with its routes; `default_server` answers to every name."""

    port: int
    server_name: str
    default_server: bool
    locations: tuple[Location, ...]


SAMPLE_SITES = (
    Site(443, "_", True, (Location("/v1/", "a", "llm_a"), Location("/b/v1/", "b", "llm_b"))),
    Site(8443, "_", True, (Location("/v1/", "c", "llm_c"),)),
)


def sites_of(port: int, server_name: str, routes: Sequence[Route]) -> tuple[Site, ...]:
    """The sites with their routes: the endpoint at this port and name, then services' own."""
    places: dict[tuple[int, str], list[Location]] = {(port, server_name): []}
    for route in routes:
        place = route.match.port or port, route.match.server_name or server_name
        location = Location(route.match.location, route.service, route.upstream)
        places.setdefault(place, []).append(location)
    # Only a balancer that answers to every name may claim a port for itself.
    return tuple(
        Site(port, name, name == "_", tuple(locations))
        for (port, name), locations in places.items()
    )


def error_answers() -> list[dict[str, int | str]]:
    """What a balancer itself answers, in the form that OpenAI's clients expect: status and body."""
    return [{"status": status, "body": _body(*error)} for status, error in ERRORS.items()]


def _body(message: str, kind: str, code: str) -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})
