"""The texts of HAProxy's files. Pure, except that templates are read."""

from collections.abc import Sequence

from roles.balancer.haproxy.paths import LOADS
from roles.balancer.haproxy.template import TEMPLATE, frontends
from roles.balancer.haproxy.upstreams import backends
from roles.balancer.routes import Route
from roles.balancer.settings import BalancerSettings
from roles.balancer.sites import error_answers, sites_of
from roles.balancer.state import BalancerState
from roles.balancer.template import rendered
from roles.host import read_text
from roles.host.templates import TEMPLATES


def render_site(settings: BalancerSettings, routes: Sequence[Route], certificate: str) -> str:
    """The text of llm.cfg; the certificate's path is that on the balancer.

    jinja2.TemplateError where the inventory's own template is wrong or uses an unknown variable.
    """
    sites = sites_of(settings.port, settings.server_name, routes)
    return TEMPLATE.rendered(
        settings.template,
        sites=sites,
        frontends=frontends(sites),
        ipv6=settings.ipv6,
        certificate=certificate,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        max_body_mib=settings.max_body_mib,
        errors=error_answers(),
    )


def render_upstreams(state: BalancerState) -> str:
    """The text of upstreams.cfg, the only file of HAProxy that a drain changes."""
    return rendered(
        read_text(TEMPLATES / "haproxy/upstreams.cfg.j2"),
        upstreams=backends(state),
        max_fails=state.max_fails,
        downinter_s=state.fail_timeout_s,
    )


def render_service() -> str:
    """The drop-in that has HAProxy's unit load our files."""
    options = " ".join(f"-f {path}" for path in LOADS)
    return rendered(read_text(TEMPLATES / "haproxy/service.conf.j2"), options=options)


def render_client_keys(route: Route) -> str:
    """The key of a service's clients, as a list of what is right; secret, for root alone."""
    return f"{route.api_key}\n"


def render_engine_key(route: Route) -> str:
    """The header that a service's engines expect, as a map by service; secret, for root alone.

    Engines that expect no key get no header, never the client's key.
    """
    return f"{route.service} Bearer {route.engine_key}\n" if route.engine_key else ""
