"""Measures how the GPUs of each planned replica reach each other, before engines start."""

from collections.abc import Callable

from pyinfra.api.deploy import deploy

from roles.interconnect import operations
from roles.interconnect.operations import Adopt, Keep, Record, Replan, Subject
from roles.interconnect.settings import InterconnectSettings


@deploy("Interconnect")
def measure(
    subject: Callable[[], Subject],
    settings: InterconnectSettings,
    anew: bool,
    keep: Keep,
    replan: Replan,
    adopt: Adopt,
    record: Record,
) -> None:
    """Measure what no verdict counts for; P2P is turned off where it does not work."""
    operations.measured(
        name="GPUs of each replica work together",
        subject=subject,
        settings=settings,
        anew=anew,
        keep=keep,
        replan=replan,
        adopt=adopt,
        record=record,
    )
