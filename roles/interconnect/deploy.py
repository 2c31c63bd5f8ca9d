"""Measures how the GPUs of each planned replica reach each other, before engines start."""

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
    """Measure what no verdict counts for; P2P is turned off where it does not work."""
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
