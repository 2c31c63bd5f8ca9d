"""The interface of a balancer program; the programs are in `kinds.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from roles.balancer.routes import Route
from roles.balancer.settings import BalancerSettings
from roles.balancer.state import BalancerState
from roles.host import HostFile


@dataclass(frozen=True)
class Takeover:
    """What a balancer of an earlier version of this project becomes, before anything else changes.

    Members and keys stay as they are, and drains get an owner. `script` runs after the files are
    written.
    """

    state: BalancerState
    files: Sequence[HostFile]
    script: str


class Balancer(Protocol):
    """A balancer program: its files, and the shell scripts that act on it.

    Paths are those on the balancer's host. Everything is pure, except that files named in settings
    are read.
    """

    @property
    def kind(self) -> str:
        """Its name in an inventory, of its unit and of its processes."""
        ...

    @property
    def packages(self) -> Sequence[str]:
        """Its Debian packages."""
        ...

    @property
    def main_file(self) -> str:
        """A file of its package: where it is missing, the program was never installed."""
        ...

    @property
    def installed_script(self) -> str:
        """The script that runs after the first installation of its package; "" for none."""
        ...

    @property
    def site(self) -> str:
        """The file that makes it serve; where it is missing, we have never deployed here."""
        ...

    @property
    def files(self) -> Sequence[str]:
        """Shell patterns of all our files; a deploy removes those that it does not write."""
        ...

    @property
    def selinux_boolean(self) -> str:
        """The boolean by which SELinux lets it connect to engines."""
        ...

    @property
    def self_signed(self) -> str:
        """The file of its self-signed certificate and key, for inventories that name none."""
        ...

    def certificate_paths(self, settings: BalancerSettings) -> tuple[str, str]:
        """The paths of the certificate and its key."""
        ...

    def site_files(self, settings: BalancerSettings, routes: Sequence[Route]) -> list[HostFile]:
        """All files except those of upstreams and engines' keys; a file comes before those that
        refer to it."""
        ...

    def engine_key_file(self, route: Route) -> HostFile:
        """The file with the key of a service's engines, which no other file holds."""
        ...

    def upstream_files(self, state: BalancerState) -> list[HostFile]:
        """The files of the upstreams, the only ones that a drain changes."""
        ...

    def engine_key_paths(self, service: str) -> Sequence[str]:
        """Files that may hold the engines' key of an earlier deploy, as `Bearer KEY`."""
        ...

    def take_over(self, site: str, run: str, since: str) -> Takeover | None:
        """What the site of an earlier version becomes; None for an empty or a present one.

        ValueError where it cannot be read.
        """
        ...

    def check(self) -> str:
        """A check for `roles.host.operations.present`: does the program accept the new files?"""
        ...

    def state_command(self) -> str:
        """A command that prints four lines: whether it is enabled and active (as systemctl does),
        the digest of its files, and the digest of the loaded files."""
        ...

    def enable_script(self) -> str:
        """A script that enables it at boot."""
        ...

    def start_script(self) -> str:
        """A script that starts it."""
        ...

    def remove_script(self) -> str:
        """A script that removes all our files, after it was stopped."""
        ...

    def reload_script(self) -> str:
        """A script that loads the files, and ends when no process uses the old ones any more."""
        ...
