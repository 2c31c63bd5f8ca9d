"""Installs the GPU driver of a host."""

from collections.abc import Callable

from pyinfra.api.deploy import deploy

from roles.driver import operations
from roles.driver.decision import DriverRequest
from roles.driver.job import Job, MayChange, always_allowed
from roles.driver.settings import DriverSettings
from roles.driver.state import DriverState
from roles.engine import EngineNeeds
from roles.hardware import Hardware


def job_of(
    settings: DriverSettings,
    needs: EngineNeeds,
    hardware: Hardware | None,
    upgrade: bool,
    known_state: Callable[[], DriverState | None],
    on_change: Callable[[], None],
) -> Job:
    """The job for a host's driver.

    `upgrade`: install the newest version of the branch, and the newest kernel. See `Job` for the
    other parameters.
    """
    gpus = hardware.gpus if hardware is not None else ()
    request = DriverRequest(settings, needs, gpus, upgrade)
    return Job(request, known_state=known_state, on_change=on_change)


@deploy("Driver is possible")
def check_driver(job: Job) -> None:
    """Stop a host that can get no driver, before anything changes; sets `job.to_do`."""
    operations.possible(name="Check that a driver can be installed", job=job)


@deploy("Driver")
def driver(job: Job, may_change: MayChange = always_allowed) -> None:
    """Install the driver that the GPUs and the engine need; an acceptable driver stays.

    Each operation calls `may_change` when it executes, and does nothing where that says no.
    `check_driver` must have passed the host before.
    """
    arguments = {"job": job, "may_change": may_change}
    operations.finished(name="Finish an interrupted installation", **arguments)
    operations.rebuilt(name="Build a lost module again", job=job)
    operations.repository(name="Set up the repository", **arguments)
    operations.installed(name="Install the driver", **arguments)
    operations.nouveau_blocked(name="Block nouveau", **arguments)
    operations.held(name="Hold driver and kernel together", **arguments)
    operations.loaded(name="Load the driver", **arguments)
    operations.serving(name="Run the driver's daemons", **arguments)
