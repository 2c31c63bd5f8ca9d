"""Installs engines on a host."""

import shlex
from collections.abc import Callable, Sequence

from pyinfra import host
from pyinfra.api import operation

from roles.engine.deployment import Installation
from roles.engine.facts import InstalledEngines
from roles.engine.install import packages_script
from roles.engine.state import Installed, missing_builds
from roles.host.outcome import PhasedCommand


@operation()
def installed(
    installations: Sequence[Installation],
    found: Callable[[], Installed | None],
    changed: Callable[[], None],
):
    """
    Install builds of engines and the distribution's packages that they need; running ones stay.

    + installations: the builds, each in a folder of its own
    + found: returns what is installed if this run knows it; otherwise the host is asked
    + changed: called if anything was installed
    """
    packages = list(dict.fromkeys(name for one in installations for name in one.packages))
    state = found() or host.get_fact(InstalledEngines, packages=packages)
    # A failed fact returns its default, an empty host, and pyinfra continues here.
    if host in host.state.failed_hosts:
        return
    missing = missing_builds(installations, state)
    if not missing and not state.missing_packages:
        host.noop(f"{', '.join(one.version_name for one in installations)}: installed")
        return
    if state.missing_packages:
        yield PhasedCommand("sh", "-c", shlex.quote(packages_script(state.missing_packages)))
    for one in missing:
        yield PhasedCommand("sh", "-c", shlex.quote(one.script), _stdin=one.stdin or "\n")
    changed()
