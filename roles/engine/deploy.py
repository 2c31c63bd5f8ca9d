"""Puts the engine on GPU hosts."""

from pyinfra.api.deploy import deploy

from roles.engine import operations
from roles.engine.settings import EngineSettings


@deploy("Engine")
def install(settings: EngineSettings) -> None:
    """Install the engine's version beside the one in use; launch switches over to it."""
    operations.installed(name=f"Install {settings.version_name}", settings=settings)
