"""Installs engines on GPU hosts."""

from collections.abc import Callable, Sequence

from pyinfra.api.deploy import deploy

from roles.engine import operations
from roles.engine.deployment import Installation
from roles.engine.state import Installed
from roles.models import Adapter


@deploy("Engine")
def install(
    installations: Sequence[Installation],
    found: Callable[[], Installed | None],
    changed: Callable[[], None],
) -> None:
    """Install builds beside those in use; a replica changes to its build when it restarts."""
    names = ", ".join(dict.fromkeys(one.version_name for one in installations))
    operations.installed(
        name=f"Install {names}", installations=installations, found=found, changed=changed
    )


@deploy("Engine")
def copy_adapters(adapters: Sequence[Adapter]) -> None:
    """Copy the LoRA adapters that a host's replicas serve, beside those in use."""
    operations.adapters_present(name="Copy LoRA adapters", adapters=adapters)
