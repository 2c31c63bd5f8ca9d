"""Measures how the GPUs of each planned replica reach each other, before engines start."""

from pyinfra.api.deploy import deploy

from roles.hardware import Hardware
from roles.interconnect import operations
from roles.interconnect.operations import Keep, Replan
from roles.interconnect.settings import InterconnectSettings
from roles.launch import HostLaunch


@deploy("Interconnect")
def measure(
    launch: HostLaunch,
    hardware: Hardware,
    settings: InterconnectSettings,
    anew: bool,
    keep: Keep,
    replan: Replan,
) -> None:
    """Measure what no verdict counts for; P2P is turned off where it does not work."""
    operations.measured(
        name="GPUs of each replica work together",
        launch=launch,
        hardware=hardware,
        settings=settings,
        anew=anew,
        keep=keep,
        replan=replan,
    )
