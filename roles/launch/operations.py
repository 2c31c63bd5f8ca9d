"""Moves a host's replicas from what runs to what is planned."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles.host import AWAIT_SERVING, LEGACY, PROBE, SERVING, SecretInput, bundle
from roles.host.outcome import PHASES, failing, warn
from roles.launch.facts import LaunchFacts, NotServing
from roles.launch.host_launch import HostLaunch, task
from roles.launch.state import Change, LaunchState
from roles.launch.transaction import RESTORED
from roles.rolling import HostStep

HERE = Path(__file__).parent
TRANSACTION = (PROBE, SERVING, LEGACY, HERE / "on_host.py", HERE / "transaction.py")
Launch = Callable[[], HostLaunch]


class Note(Protocol):
    """Takes what a host runs and what is to be done there, and whether nothing served yet."""

    def __call__(
        self, state: LaunchState, changes: Sequence[Change], fresh: bool = False
    ) -> None: ...


@operation()
def start_replicas(
    launch: Launch,
    run_id: str,
    note: Note,
    known_state: Callable[[], LaunchState | None],
    on_change: Callable[[], None],
):
    """
    Start a host's replicas where nothing serves yet, and write what replicas share where that alone
    differs; a host that serves is left to the rolling update. Each replica must answer a real
    completion.

    + launch: what the host is to run, asked when the run executes
    + run_id: the run's, which the manifest records
    + note: takes what was found, for the rolling update
    + known_state: what the host runs, where it is known in this run; else it is asked
    + on_change: is called where anything was changed
    """
    state, launch_plan = known_state() or host.get_fact(LaunchFacts), launch()
    # A fact that fails gives its default, a bare host, and pyinfra goes on here.
    if host in host.state.failed_hosts:
        return
    changes = launch_plan.changes(state)
    note(state, changes, fresh=bool(changes) and not state.serving)
    if not changes:
        host.noop("all replicas run as planned")
        return
    moving = [change.subject for change in changes if change.kind in ("move", "start")]
    retired = [change.subject for change in changes if change.kind == "retire"]
    if state.serving and (moving or retired):
        host.noop("replicas serve here: the rolling update changes them")
        return
    yield _transaction(launch_plan, state, [moving] if moving else [], retired, run_id)
    on_change()


@operation()
def move_replicas(
    launch: Launch,
    run_id: str,
    step: Callable[[], HostStep | None],
    on_moved: Callable[[Collection[str]], None],
    on_restored: Callable[[Collection[str]], None],
):
    """
    Move those replicas of a host whose turn it is to what is planned, together; each must answer a
    real completion, or the old is put back.

    + launch: what the host is to run, asked when the run executes
    + run_id: the run's, which the manifest records
    + step: what of the host goes on in this batch, asked when the run executes
    + on_moved: takes the ids of what was moved or taken down
    + on_restored: takes the ids of who did not serve, where all serve as before again
    """
    host_step = step() if host.state.is_executing else None
    if host_step is None:
        host.noop("nothing moves here" if host.state.is_executing else "decided when executed")
        return
    names = [id.partition("/")[2] for id in host_step.restarts]
    retired = [id.partition("/")[2] for id in host_step.removals]
    state = host.get_fact(LaunchFacts)
    if host in host.state.failed_hosts:
        return
    this_host = host.name
    yield _transaction(
        *(launch(), state, [names] if names else [], retired, run_id),
        on_restored=lambda failed: on_restored([f"{this_host}/{name}" for name in failed]),
    )
    on_moved((*host_step.restarts, *host_step.removals))


@operation()
def check_serving(
    launch: Launch,
    skip_reasons: Callable[[], Collection[str]],
    refusals: Callable[[], Collection[str]] = tuple,
    on_result: Callable[[Collection[str], bool], None] = lambda names, serve: None,
):
    """
    Wait until each of a host's replicas answers a real completion; a host that booted a moment ago
    may be loading its weights still. Changes nothing, and fails the host where one does not serve.

    + launch: what the host is to run, asked when the run executes
    + skip_reasons: what the rolling update left as it is on this host, and why: such a host runs
      from older settings, and its replicas are not asked
    + refusals: those of them that the plan of the update refuses to move; they fail the host
    + on_result: takes the names of the host's replicas, and whether all of them serve
    """
    if not host.state.is_executing:
        host.noop("replicas are asked when the run executes")
        return
    if reasons := skip_reasons():
        for reason in reasons:
            warn(f"{reason}; the old replicas serve on")
        if refused := refusals():
            yield failing("; ".join(refused))
        else:
            host.noop("the old replicas serve on")
        return
    launch_plan = launch()
    names = [one.name for one in launch_plan.replicas]
    program = bundle(
        [PROBE, SERVING, LEGACY, AWAIT_SERVING],
        {"names": names, "start_timeout_s": launch_plan.settings.start_timeout_s},
    )
    message = host.get_fact(NotServing, _stdin=SecretInput(program)) if names else ""
    # A fact that fails gives its default, as if all served.
    if host in host.state.failed_hosts:
        return
    on_result(names, not message)
    if message:
        yield failing(message)
    else:
        host.noop("all replicas serve")


def _transaction(
    launch_plan: HostLaunch,
    state: LaunchState,
    steps: Sequence[Collection[str]],
    retired: Collection[str],
    run_id: str,
    on_restored: Callable[[Collection[str]], None] | None = None,
) -> StringCommand:
    program = bundle(TRANSACTION, task(launch_plan, state, steps, retired, run_id))
    return _Transaction(program, on_restored)


class _Transaction(StringCommand):
    """The command that runs the transaction on a host.

    Where it fails and everything is as before again, `on_restored` takes the names of the replicas
    that did not serve.
    """

    def __init__(
        self, program: str, on_restored: Callable[[Collection[str]], None] | None = None
    ) -> None:
        super().__init__("python3", "-", _stdin=program)
        self._on_restored = on_restored

    def execute(self, state: Any, host: Any, connector_arguments: Any) -> tuple[bool, Any]:
        host.connector_data[PHASES] = {}
        try:
            ok, output = super().execute(state, host, connector_arguments)
        finally:
            host.connector_data.pop(PHASES, None)
        lines = () if ok else output.stdout_lines
        failed = [line.removeprefix(RESTORED).split() for line in lines if RESTORED in line]
        if failed and self._on_restored:
            self._on_restored(failed[-1])
        return ok, output
