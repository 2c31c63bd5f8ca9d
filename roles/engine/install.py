"""The parts of an installation that all engines share. Pure."""

import shlex
from collections.abc import Iterable

COMPLETE = ".complete"
"""The last file of a complete version."""


def packages_script(packages: Iterable[str]) -> str:
    """Install packages of the distribution (Debian, Ubuntu)."""
    names = " ".join(shlex.quote(package) for package in packages)
    return (
        "export DEBIAN_FRONTEND=noninteractive; "
        "apt-get -q update >&2 && "
        f"apt-get -q install -y --no-install-recommends {names} >&2"
    )
