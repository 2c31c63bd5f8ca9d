"""What a program must offer to be the balancer. The programs themselves are in `kinds.py`."""

from collections.abc import Sequence
from typing import Protocol

from roles.balancer.routes import Route
from roles.balancer.settings import BalancerSettings
from roles.balancer.state import BalancerState
from roles.host import HostFile


class Balancer(Protocol):
    """A program in front of all replicas: its files, and the shell scripts that act on it.

    Paths are those on a balancer. Everything is pure, but for the files that settings name.
    """

    @property
    def kind(self) -> str:
        """Its name in an inventory."""
        ...

    @property
    def packages(self) -> Sequence[str]:
        """The Debian packages that it needs."""
        ...

    @property
    def main_file(self) -> str:
        """A file that its package brings; without it the program was never here."""
        ...

    @property
    def installed_script(self) -> str:
        """What is run once its package was installed where it never was."""
        ...

    @property
    def site(self) -> str:
        """The file that makes it serve; without it nothing of ours is there."""
        ...

    @property
    def files(self) -> Sequence[str]:
        """Shell patterns of all files of ours; those that no deploy writes again are removed."""
        ...

    @property
    def self_signed(self) -> str:
        """The certificate, with its key, that it makes where the inventory gives none."""
        ...

    def certificate_paths(self, settings: BalancerSettings) -> tuple[str, str]:
        """Where the certificate and its key lie."""
        ...

    def site_files(self, settings: BalancerSettings, routes: Sequence[Route]) -> list[HostFile]:
        """All files but those of upstreams and engines' keys, those that others name first."""
        ...

    def engine_key_file(self, route: Route) -> HostFile:
        """The file that alone holds the key of a service's engines."""
        ...

    def upstream_files(self, state: BalancerState) -> list[HostFile]:
        """The only files that a drain changes."""
        ...

    def engine_key_paths(self, service: str) -> Sequence[str]:
        """Where the engines' key, as `Bearer KEY` in quotes, may lie from an earlier deploy."""
        ...

    def check(self) -> str:
        """A check for `roles.host.operations.present`: whether the program takes the new files."""
        ...

    def state_command(self) -> str:
        """Prints four lines: enabled, active (as systemctl does), the files' digest, the loaded."""
        ...

    def enable_script(self) -> str:
        """Has it start with the host."""
        ...

    def start_script(self) -> str:
        """Starts it."""
        ...

    def reload_script(self) -> str:
        """Loads the files; it ends when nothing takes requests by the old ones any more."""
        ...
