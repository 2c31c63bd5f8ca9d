"""The parts of an installation that all engines share. Pure."""

import shlex
from collections.abc import Iterable

from roles.host import PROGRESS

COMPLETE = ".complete"
"""The last file of a complete version."""


def report_phase(name: str, phase: str) -> str:
    """The line of a script that says what an installation is at."""
    return f"echo {shlex.quote(f'{PROGRESS}{name} {phase}')}"


def packages_script(packages: Iterable[str]) -> str:
    """Install packages of the distribution (Debian, Ubuntu)."""
    names = " ".join(shlex.quote(package) for package in packages)
    return (
        f"{report_phase('packages', 'apt-get')}; export DEBIAN_FRONTEND=noninteractive; "
        "apt-get -q update >&2 && "
        f"apt-get -q install -y --no-install-recommends {names} >&2"
    )
