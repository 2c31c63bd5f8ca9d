"""HAProxy as the balancer program."""

from collections.abc import Sequence
from dataclasses import dataclass

from roles.balancer.balancer import Takeover
from roles.balancer.haproxy import paths, scripts
from roles.balancer.haproxy.render import (
    render_client_keys,
    render_engine_key,
    render_service,
    render_site,
    render_upstreams,
)
from roles.balancer.haproxy.upstreams import drain_commands
from roles.balancer.routes import Route
from roles.balancer.settings import BalancerSettings
from roles.balancer.state import STATE, BalancerState, dump_state
from roles.host import HostFile, read_text


@dataclass(frozen=True)
class Haproxy:
    """HAProxy: see `roles.balancer.balancer.Balancer`."""

    kind: str = "haproxy"
    packages: Sequence[str] = ("haproxy", "openssl", "python3", "procps")
    main_file: str = paths.MAIN
    # The package's own configuration has no port.
    installed_script: str = ""
    site: str = paths.SITE
    files: Sequence[str] = (*paths.FILES, f"{paths.KEYS}/*")
    self_signed: str = paths.SELF_SIGNED
    selinux_boolean: str = "haproxy_connect_any"

    def certificate_paths(self, settings: BalancerSettings) -> tuple[str, str]:
        """Where the certificate and its key lie."""
        if settings.certificate_file is None:
            return paths.SELF_SIGNED, paths.SELF_SIGNED
        return paths.CERTIFICATE, paths.CERTIFICATE_KEY

    def site_files(self, settings: BalancerSettings, routes: Sequence[Route]) -> list[HostFile]:
        """The given certificate, the clients' keys, the site and what has it loaded."""
        certificate, _ = self.certificate_paths(settings)
        return [
            *_given_certificate(settings),
            *(_secret(paths.client_keys(r.service), render_client_keys(r)) for r in routes),
            HostFile(paths.SITE, render_site(settings, routes, certificate)),
            HostFile(paths.SERVICE, render_service()),
        ]

    def engine_key_file(self, route: Route) -> HostFile:
        """The header that a service's engines expect."""
        return _secret(paths.engine_key(route.service), render_engine_key(route))

    def upstream_files(self, state: BalancerState) -> list[HostFile]:
        """The upstreams and the state that they follow from."""
        return [
            HostFile(paths.UPSTREAMS, render_upstreams(state)),
            HostFile(paths.DRAINED, drain_commands(state)),
            HostFile(STATE, dump_state(state)),
        ]

    def engine_key_paths(self, service: str) -> Sequence[str]:
        """Where the engines' key may lie from an earlier deploy."""
        return (paths.engine_key(service),)

    def take_over(self, site: str, run: str, since: str) -> Takeover | None:
        """None: no earlier version of this project ran HAProxy."""
        return None

    def check(self) -> str:
        """`haproxy -c` over all of its configuration."""
        return scripts.check()

    def state_command(self) -> str:
        """Prints four lines: enabled, active, the files' digest, the loaded."""
        return scripts.state_command()

    def enable_script(self) -> str:
        """Has it start with the host."""
        return "systemctl enable haproxy"

    def start_script(self) -> str:
        """Starts it and notes what it has loaded."""
        return scripts.start_script()

    def remove_script(self) -> str:
        """Removes our files; the package's configuration stays."""
        return f"rm -rf {paths.FOLDER} {paths.SERVICE}; systemctl daemon-reload"

    def reload_script(self) -> str:
        """Loads the files; it ends when no old worker takes connections any more."""
        return scripts.reload_script()


def _secret(path: str, text: str) -> HostFile:
    return HostFile(path, text, mode="600")


def _given_certificate(settings: BalancerSettings) -> tuple[HostFile, ...]:
    if settings.certificate_file is None or settings.certificate_key_file is None:
        return ()
    return (
        HostFile(paths.CERTIFICATE, read_text(settings.certificate_file)),
        _secret(paths.CERTIFICATE_KEY, read_text(settings.certificate_key_file)),
    )
