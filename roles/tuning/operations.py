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
    Bring /dev/shm, power limits and MIG slices to what is set, now and for the next boot.

    + settings: the tuning settings
    + gpus_together: how many GPUs the host's largest replica has
    + found: how the host is tuned, where it is known in this run; else it is asked
    + changed: is called where anything was changed
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
        host.noop("memory and GPUs are as they must be")
        return
    yield StringCommand(
        "sh", "-c", shlex.quote(change_script(todo)), _stdin=archive(todo.files) or "\n"
    )
    changed()


def change_script(todo: Steps) -> str:
    """All changes of a host in one script; new files are on its standard input."""
    install = ""
    if todo.changed:
        # Its own shell: what it cleans up at its end must not be left to the end of the whole.
        script = install_script(todo.files, todo.changed, check_script(), ())
        install = f"(\n{script}\n)"
    parts = ["set -eu", shm_script(todo), restore_script(todo), install, gpu_script(todo)]
    return "\n".join(part for part in parts if part)
