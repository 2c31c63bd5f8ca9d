"""The stage of a deploy that prepares a host's memory and GPUs for engines."""

from collections.abc import Callable

from pyinfra.api import deploy

from roles.tuning.operations import tuned
from roles.tuning.settings import TuningSettings
from roles.tuning.state import HostTuning


@deploy("Tuning")
def tune(
    settings: TuningSettings,
    gpus_together: int,
    found: Callable[[], HostTuning | None],
    changed: Callable[[], None],
):
    """Set shared memory, power limits and MIG slices of a host; see `tuned` for the parameters."""
    return tuned(
        name="Shared memory, power limits and MIG slices are as set",
        settings=settings,
        gpus_together=gpus_together,
        found=found,
        changed=changed,
    )
