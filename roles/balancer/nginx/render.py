"""The texts of nginx's files. Pure, except that templates are read."""

from collections.abc import Sequence

from roles.balancer.nginx.template import TEMPLATE
from roles.balancer.routes import Route
from roles.balancer.settings import BalancerSettings
from roles.balancer.sites import error_answers, sites_of
from roles.balancer.state import BalancerState
from roles.balancer.template import rendered
from roles.balancer.upstreams import servers
from roles.host import read_text
from roles.host.templates import TEMPLATES


def render_site(
    settings: BalancerSettings, routes: Sequence[Route], certificate: str, certificate_key: str
) -> str:
    """The text of /etc/nginx/conf.d/llm.conf; the certificate's paths are those on the balancer.

    jinja2.TemplateError where the inventory's own template is wrong or uses an unknown variable.
    """
    return TEMPLATE.rendered(
        settings.template,
        sites=sites_of(settings.port, settings.server_name, routes),
        ipv6=settings.ipv6,
        certificate=certificate,
        certificate_key=certificate_key,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        max_body_mib=settings.max_body_mib,
        errors=error_answers(),
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


def _literal(text: str) -> str:
    """A regular expression that matches exactly the text."""
    return "".join(char if char.isalnum() else f"\\x{ord(char):02x}" for char in text)
