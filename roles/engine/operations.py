"""Installs an engine on a host."""

import shlex

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles.engine.facts import InstalledEngines
from roles.engine.install import engine_script, packages_script
from roles.engine.settings import EngineSettings


@operation()
def installed(settings: EngineSettings):
    """
    Install the engine and what it needs of the distribution; the version in use stays in use.

    + settings: the engine's settings
    """
    state = host.get_fact(InstalledEngines, packages=list(settings.system_packages))
    if settings.version_name in state.versions and not state.missing_packages:
        host.noop(f"{settings.version_name} is installed")
        return
    if state.missing_packages:
        yield StringCommand("sh", "-c", shlex.quote(packages_script(state.missing_packages)))
    if settings.version_name not in state.versions:
        lock = settings.lock.read_text() if settings.lock else ""
        script = engine_script(settings)
        yield StringCommand("sh", "-c", shlex.quote(script), _stdin=lock or "\n")
