"""nginx as the balancer program."""

from collections.abc import Sequence
from dataclasses import dataclass

from roles.balancer.balancer import Takeover
from roles.balancer.nginx import paths, scripts
from roles.balancer.nginx.render import (
    render_client_keys,
    render_engine_key,
    render_site,
    render_upstreams,
)
from roles.balancer.nginx.takeover import keys_script, take_over
from roles.balancer.routes import Route
from roles.balancer.settings import BalancerSettings
from roles.balancer.state import STATE, BalancerState, dump_state
from roles.host import HostFile, read_text


@dataclass(frozen=True)
class Nginx:
    """nginx: see `roles.balancer.balancer.Balancer`."""

    kind: str = "nginx"
    packages: Sequence[str] = ("nginx", "openssl", "python3", "procps")
    main_file: str = f"{paths.ROOT}/nginx.conf"
    # Debian's default site uses port 80: nginx would not start where another program has that port.
    installed_script: str = f"rm -f {paths.DEFAULT_SITE}"
    site: str = paths.SITE
    files: Sequence[str] = (*paths.FILES, f"{paths.KEYS}/*")
    self_signed: str = paths.SELF_SIGNED
    selinux_boolean: str = "httpd_can_network_connect"

    def certificate_paths(self, settings: BalancerSettings) -> tuple[str, str]:
        """Where the certificate and its key lie."""
        if settings.certificate_file is None:
            return paths.SELF_SIGNED, paths.SELF_SIGNED
        return paths.CERTIFICATE, paths.CERTIFICATE_KEY

    def site_files(self, settings: BalancerSettings, routes: Sequence[Route]) -> list[HostFile]:
        """The given certificate, the clients' keys and the site."""
        certificate, key = self.certificate_paths(settings)
        return [
            *_given_certificate(settings),
            *(_secret(paths.client_keys(r.service), render_client_keys(r)) for r in routes),
            HostFile(paths.SITE, render_site(settings, routes, certificate, key)),
        ]

    def engine_key_file(self, route: Route) -> HostFile:
        """The header that a service's engines expect."""
        return _secret(paths.engine_key(route.service), render_engine_key(route))

    def upstream_files(self, state: BalancerState) -> list[HostFile]:
        """The upstreams and the state that they follow from."""
        return [
            HostFile(paths.UPSTREAMS, render_upstreams(state)),
            HostFile(STATE, dump_state(state)),
        ]

    def engine_key_paths(self, service: str) -> Sequence[str]:
        """Where the engines' key may lie from an earlier deploy."""
        return paths.engine_key(service), paths.OLD_KEYS

    def take_over(self, site: str, run: str, since: str) -> Takeover | None:
        """The upstream moves into a file of its own; ValueError where it cannot be read."""
        old = take_over(site, run, since)
        if old is None:
            return None
        upstreams, remembered = self.upstream_files(old.state)
        # The state comes last: where it exists, nginx must already read the new files.
        files = (upstreams, HostFile(paths.SITE, old.site), remembered)
        return Takeover(old.state, files, keys_script(old.service))

    def check(self) -> str:
        """`nginx -t` over all of its configuration."""
        return scripts.check()

    def state_command(self) -> str:
        """Prints four lines: enabled, active, the files' digest, the loaded."""
        return scripts.state_command()

    def enable_script(self) -> str:
        """Has it start with the host."""
        return "systemctl enable nginx"

    def start_script(self) -> str:
        """Starts it and notes what it has loaded."""
        return scripts.start_script()

    def remove_script(self) -> str:
        """Removes our files; other sites stay."""
        return f"rm -rf {paths.FOLDER} {paths.SITE}"

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
