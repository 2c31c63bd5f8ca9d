"""Installs engines on a host."""

import shlex
from collections.abc import Callable, Sequence

from pyinfra import host
from pyinfra.api import FileUploadCommand, StringCommand, operation

from roles.engine.adapters import begin_script, end_script, incoming, missing_adapters
from roles.engine.deployment import Installation
from roles.engine.facts import Adapters, InstalledEngines
from roles.engine.install import packages_script
from roles.engine.state import Installed, missing_builds
from roles.host.outcome import PhasedCommand
from roles.models import Adapter


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


@operation()
def adapters_present(adapters: Sequence[Adapter]):
    """
    Copy LoRA adapters to a host, each into a folder named by its files' digest; those that are
    there stay as they are.

    + adapters: what the replicas of the host serve
    """
    there = host.get_fact(Adapters)
    # A failed fact returns its default, a host without adapters.
    if host in host.state.failed_hosts:
        return
    missing = missing_adapters(adapters, there)
    if not missing:
        host.noop(f"{len(adapters)} adapters: there")
        return
    for adapter in missing:
        yield StringCommand("sh", "-c", shlex.quote(begin_script(adapter)))
        for path, _ in adapter.files:
            yield FileUploadCommand(str(path), f"{incoming(adapter)}/{path.name}")
        yield StringCommand("sh", "-c", shlex.quote(end_script(adapter)))
