"""Operations that start a host's replicas, move them to the plan, and check that they serve."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles.checks.deploy import report_of
from roles.host import AWAIT_SERVING, LEGACY, PROBE, SERVING, SecretInput, bundle
from roles.host.outcome import PhasedCommand, failing, hearing_phases, warn
from roles.launch.facts import LaunchFacts, NotServing
from roles.launch.host_launch import HostLaunch, phases_of, task
from roles.launch.state import Change, LaunchState
from roles.launch.transaction import RESTORED
from roles.rolling import HostStep

HERE = Path(__file__).parent
TRANSACTION = (
    *(PROBE, SERVING, LEGACY, HERE / "on_host.py", HERE / "leftovers.py"),
    HERE / "transaction.py",
)
Launch = Callable[[], HostLaunch]


class Note(Protocol):
    """Takes a host's state, what is to be done there, and whether this run starts it (`fresh`)."""

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
    Start a host's replicas if none runs yet; each must answer a real completion. Where only files
    that replicas share differ, write them. Replicas that serve are left to the rolling update.

    + launch: returns what the host is to run; called when the run executes
    + run_id: the id of this run, which the manifest records
    + note: takes what was found, for the rolling update
    + known_state: returns the host's state where this run knows it, or None: then the host is asked
    + on_change: called where anything was changed
    """
    state, launch_plan = known_state() or host.get_fact(LaunchFacts), launch()
    # pyinfra goes on here after a failed fact, with its default: an empty host.
    if host in host.state.failed_hosts:
        return
    changes = launch_plan.changes(state)
    # A replica over several hosts starts by the rolling update, which knows all of its hosts.
    parts = [one for one in changes if one.subject in launch_plan.parts and one.kind != "retire"]
    own = [one for one in changes if one not in parts]
    if parts and not state.serving:
        note(state, parts, fresh=False)
        changes = own if any(one.kind in ("move", "start", "retire") for one in own) else []
    else:
        note(state, changes, fresh=bool(changes) and not state.serving)
    if not changes:
        host.noop("replicas over several hosts start later" if parts else "all run as planned")
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
    Move a host's replicas of this batch to what is planned, all together. Each must answer a real
    completion; otherwise the previous replicas are restored.

    + launch: returns what the host is to run; called when the run executes
    + run_id: the id of this run, which the manifest records
    + step: returns what the host does in this batch; called when the run executes
    + on_moved: takes the ids of replicas that were moved or taken down
    + on_restored: takes the ids of replicas that did not serve, once the previous ones serve again
    """
    host_step = step() if host.state.is_executing else None
    if host_step is None:
        host.noop("nothing moves here" if host.state.is_executing else "decided when executed")
        return
    names = list(dict.fromkeys(id.partition("/")[2] for id in host_step.restarts))
    # A replica of the same name, of this host alone or of others, takes its place.
    left = [id.partition("/")[2] for id in host_step.removals]
    retired = [name for name in dict.fromkeys(left) if name not in names]
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
    Wait until each of a host's replicas answers a real completion, as they may still load their
    weights. Changes nothing; fails the host where a replica does not serve.

    + launch: returns what the host is to run; called when the run executes
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
            warn(f"{reason}; its replicas stay as they are")
        if refused := refusals():
            yield failing("; ".join(refused))
        else:
            host.noop("its replicas stay as they are")
        return
    launch_plan = launch()
    names = [one.name for one in launch_plan.running]
    program = bundle(
        [PROBE, SERVING, LEGACY, AWAIT_SERVING],
        {
            "names": names,
            "start_timeout_s": launch_plan.settings.start_timeout_s,
            "progress": True,
            "phases": {one.name: phases_of(one) for one in launch_plan.running},
            "listens_first": [one.name for one in launch_plan.running if one.listens_first],
        },
    )
    with hearing_phases(host):
        message = host.get_fact(NotServing, _stdin=SecretInput(program)) if names else ""
    # The default of a failed fact would mean that all serve.
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


class _Transaction(PhasedCommand):
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
        ok, output = super().execute(state, host, connector_arguments)
        lines = () if ok else output.stdout_lines
        if not ok and (why := "\n".join(output.stderr_lines).strip()):
            report_of(state).stop(host.name, why)
        failed = [line.removeprefix(RESTORED).split() for line in lines if RESTORED in line]
        if failed and self._on_restored:
            self._on_restored(failed[-1])
        return ok, output
