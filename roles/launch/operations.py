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
    found: Callable[[], LaunchState | None],
    changed: Callable[[], None],
):
    """
    Start a host's replicas where nothing serves yet, and write what replicas share where that alone
    differs; a host that serves is left to the rolling update. Each replica must answer a real
    completion.

    + launch: what the host is to run, asked when the run executes
    + run_id: the run's, which the manifest records
    + note: takes what was found, for the rolling update
    + found: what the host runs, where it is known in this run; else it is asked
    + changed: is called where anything was changed
    """
    state, wanted = found() or host.get_fact(LaunchFacts), launch()
    # A fact that fails gives its default, a bare host, and pyinfra goes on here.
    if host in host.state.failed_hosts:
        return
    changes = wanted.changes(state)
    note(state, changes, fresh=bool(changes) and not state.serving)
    if not changes:
        host.noop("all replicas run as planned")
        return
    moving = [change.subject for change in changes if change.kind in ("move", "start")]
    retired = [change.subject for change in changes if change.kind == "retire"]
    if state.serving and (moving or retired):
        host.noop("replicas serve here: the rolling update changes them")
        return
    yield _transaction(wanted, state, [moving] if moving else [], retired, run_id)
    changed()


@operation()
def move_replicas(
    launch: Launch,
    run_id: str,
    turn: Callable[[], HostStep | None],
    done: Callable[[Collection[str]], None],
    put_back: Callable[[Collection[str]], None],
):
    """
    Move those replicas of a host whose turn it is to what is planned, together; each must answer a
    real completion, or the old is put back.

    + launch: what the host is to run, asked when the run executes
    + run_id: the run's, which the manifest records
    + turn: what of the host goes on in this batch, asked when the run executes
    + done: takes the ids of what was moved or taken down
    + put_back: takes the ids of who did not serve, where all serve as before again
    """
    own = turn() if host.state.is_executing else None
    if own is None:
        host.noop("nothing moves here" if host.state.is_executing else "decided when executed")
        return
    names = [id.partition("/")[2] for id in own.restarts]
    retired = [id.partition("/")[2] for id in own.removals]
    state = host.get_fact(LaunchFacts)
    if host in host.state.failed_hosts:
        return
    this_host = host.name
    yield _transaction(
        *(launch(), state, [names] if names else [], retired, run_id),
        put_back=lambda failed: put_back([f"{this_host}/{name}" for name in failed]),
    )
    done((*own.restarts, *own.removals))


@operation()
def check_serving(
    launch: Launch,
    left: Callable[[], Collection[str]],
    refused: Callable[[], Collection[str]] = tuple,
    seen: Callable[[Collection[str], bool], None] = lambda names, serve: None,
):
    """
    Wait until each of a host's replicas answers a real completion; a host that booted a moment ago
    may be loading its weights still. Changes nothing, and fails the host where one does not serve.

    + launch: what the host is to run, asked when the run executes
    + left: what the rolling update left as it is on this host, and why: such a host runs from older
      settings, and is not asked
    + refused: those of them that the update was never going to move, which is this host's failure
    + seen: takes the names of the host's replicas, and whether all of them serve
    """
    if not host.state.is_executing:
        host.noop("replicas are asked when the run executes")
        return
    if reasons := left():
        for reason in reasons:
            warn(f"{reason}; the old replicas serve on")
        if why := refused():
            yield failing("; ".join(why))
        else:
            host.noop("the old replicas serve on")
        return
    wanted = launch()
    names = [one.name for one in wanted.replicas]
    program = bundle(
        [PROBE, SERVING, LEGACY, AWAIT_SERVING],
        {"names": names, "start_timeout_s": wanted.settings.start_timeout_s},
    )
    message = host.get_fact(NotServing, _stdin=SecretInput(program)) if names else ""
    # A fact that fails gives its default, as if all served.
    if host in host.state.failed_hosts:
        return
    seen(names, not message)
    if message:
        yield failing(message)
    else:
        host.noop("all replicas serve")


def _transaction(
    wanted: HostLaunch,
    state: LaunchState,
    steps: Sequence[Collection[str]],
    retired: Collection[str],
    run_id: str,
    put_back: Callable[[Collection[str]], None] | None = None,
) -> StringCommand:
    program = bundle(TRANSACTION, task(wanted, state, steps, retired, run_id))
    return _Transaction(program, put_back)


class _Transaction(StringCommand):
    """The program on a host; `put_back` takes the names of the replicas that did not serve, where
    it fails and says that all is as before."""

    def __init__(
        self, program: str, put_back: Callable[[Collection[str]], None] | None = None
    ) -> None:
        super().__init__("python3", "-", _stdin=program)
        self._put_back = put_back

    def execute(self, state: Any, host: Any, connector_arguments: Any) -> tuple[bool, Any]:
        host.connector_data[PHASES] = {}
        try:
            ok, output = super().execute(state, host, connector_arguments)
        finally:
            host.connector_data.pop(PHASES, None)
        lines = () if ok else output.stdout_lines
        failed = [line.removeprefix(RESTORED).split() for line in lines if RESTORED in line]
        if failed and self._put_back:
            self._put_back(failed[-1])
        return ok, output
