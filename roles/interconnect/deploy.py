"""The deploy that measures how the GPUs of each replica reach each other, before engines start."""

from collections.abc import Callable

from pyinfra.api.deploy import deploy

from roles.interconnect import operations
from roles.interconnect.operations import AdoptVerdicts, RecordChecks, Replan, SaveVerdicts, Target
from roles.interconnect.settings import InterconnectSettings


@deploy("Interconnect")
def measure(
    target: Callable[[], Target],
    settings: InterconnectSettings,
    anew: bool,
    keep: SaveVerdicts,
    replan: Replan,
    adopt: AdoptVerdicts,
    record: RecordChecks,
) -> None:
    """Measure all groups of GPUs without a valid verdict; turn P2P off where it does not work."""
    operations.measure_links(
        name="GPUs of each replica work together",
        target=target,
        settings=settings,
        anew=anew,
        keep=keep,
        replan=replan,
        adopt=adopt,
        record=record,
    )
