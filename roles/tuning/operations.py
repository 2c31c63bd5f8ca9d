"""Sets a host's shared memory, power limits and slices."""

import shlex
from collections.abc import Callable

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles.host import archive
from roles.host.operations import install_script
from roles.host.outcome import failing
from roles.tuning.facts import TuningState
from roles.tuning.scripts import check_script, gpu_script, restore_script, shm_script
from roles.tuning.settings import TuningSettings
from roles.tuning.state import HostTuning
from roles.tuning.steps import Steps, steps


@operation()
def tuned(
    settings: TuningSettings,
    gpus_together: int,
    found: Callable[[], HostTuning | None],
    changed: Callable[[], None],
):
    """
    Apply the settings of /dev/shm, power limits and MIG slices, now and for the next boot.

    + settings: the tuning settings
    + gpus_together: the number of GPUs of the host's largest replica
    + found: returns the host's tuning if this run knows it; otherwise the host is asked
    + changed: called if anything was changed
    """
    state = found() or host.get_fact(TuningState)
    if state is None:
        yield failing("the host does not say how it is tuned")
        return
    todo = steps(settings, state, gpus_together)
    if todo.problems:
        yield failing("; ".join(todo.problems))
        return
    if not todo.descriptions:
        host.noop("memory and GPUs are set as required")
        return
    yield StringCommand(
        "sh", "-c", shlex.quote(change_script(todo)), _stdin=archive(todo.files) or "\n"
    )
    changed()


def change_script(todo: Steps) -> str:
    """All changes of a host in one script; new files are on its standard input."""
    install = ""
    if todo.changed:
        # A subshell, so that its exit trap cleans up before the rest runs.
        script = install_script(todo.files, todo.changed, check_script(), ())
        install = f"(\n{script}\n)"
    parts = ["set -eu", shm_script(todo), restore_script(todo), install, gpu_script(todo)]
    return "\n".join(part for part in parts if part)
