"""The texts of nginx's files. Pure, except that templates are read."""

import json
from collections.abc import Sequence

from roles.balancer.nginx.template import Location, Site, rendered, site_values
from roles.balancer.routes import Route
from roles.balancer.settings import BalancerSettings
from roles.balancer.state import BalancerState
from roles.balancer.upstreams import servers
from roles.host import read_text
from roles.host.templates import TEMPLATES

ERRORS = {
    401: ("The API key is missing or wrong.", "invalid_request_error", "invalid_api_key"),
    404: ("There is nothing at this address.", "invalid_request_error", "not_found"),
    413: ("The request is too large.", "invalid_request_error", "request_too_large"),
    502: ("No replica could answer.", "server_error", "bad_gateway"),
    504: ("The replica did not answer in time.", "server_error", "timeout"),
}


def render_site(
    settings: BalancerSettings, routes: Sequence[Route], certificate: str, certificate_key: str
) -> str:
    """The text of /etc/nginx/conf.d/llm.conf; the certificate's paths are those on the balancer.

    jinja2.TemplateError where the inventory's own template is wrong or uses an unknown variable.
    """
    values = site_values(
        sites(settings, routes),
        ipv6=settings.ipv6,
        certificate=certificate,
        certificate_key=certificate_key,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        max_body_mib=settings.max_body_mib,
        errors=[{"status": status, "body": _error(*error)} for status, error in ERRORS.items()],
    )
    return rendered(read_text(settings.template or TEMPLATES / "nginx/llm.conf.j2"), **values)


def sites(settings: BalancerSettings, routes: Sequence[Route]) -> tuple[Site, ...]:
    """The servers (names and ports) with their routes: the endpoint first, then services' own."""
    places: dict[tuple[int, str], list[Location]] = {(settings.port, settings.server_name): []}
    for route in routes:
        port = route.match.port or settings.port
        name = route.match.server_name or settings.server_name
        location = Location(route.match.location, route.service, route.upstream)
        places.setdefault((port, name), []).append(location)
    # Only a balancer that answers to every name may claim a port for itself.
    return tuple(
        Site(port, name, name == "_", tuple(locations))
        for (port, name), locations in places.items()
    )


def render_upstreams(state: BalancerState) -> str:
    """The text of /etc/nginx/llm/upstreams.conf, the only file of nginx that a drain changes."""
    return rendered(
        read_text(TEMPLATES / "nginx/upstreams.conf.j2"),
        upstreams=[(one.name, servers(one, state.drains)) for one in state.upstreams],
        limits=f" max_fails={state.max_fails} fail_timeout={state.fail_timeout_s}s",
    )


def render_client_keys(route: Route) -> str:
    """The key of a service's clients as an entry of a map; secret, for root alone."""
    # A regular expression, because a map ignores the case of plain strings.
    pattern = f"~^{_literal(route.service)} (?i:Bearer) {_literal(route.api_key)}$"
    return f'"{pattern}" 1;\n'


def render_engine_key(route: Route) -> str:
    """The header that a service's engines expect, as an entry of a map; secret, for root alone.

    Engines that expect no key get an empty header, never the client's key.
    """
    header = f"Bearer {route.engine_key}" if route.engine_key else ""
    return f'"~^{_literal(route.service)}$" "{header}";\n'


def _error(message: str, kind: str, code: str) -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _literal(text: str) -> str:
    """A regular expression that matches exactly the text."""
    return "".join(char if char.isalnum() else f"\\x{ord(char):02x}" for char in text)
