"""The stage of a deploy that prepares a host's memory and GPUs for engines."""

from pyinfra.api import deploy

from roles.tuning.operations import tuned
from roles.tuning.settings import TuningSettings


@deploy("Tuning")
def tune(settings: TuningSettings, gpus_together: int = 1):
    """Shared memory, power limits and MIG slices of a host; `gpus_together`: see `tuned`."""
    return tuned(
        name="Shared memory, power limits and MIG slices are as set",
        settings=settings,
        gpus_together=gpus_together,
    )
