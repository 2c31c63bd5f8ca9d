"""The end of a run: a verdict on every host, printed last, however the run ends.

pyinfra has no hook at the end of a run, so it is one of the interpreter's; a signal that would end
the process at once ends it in order.
"""

import atexit
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
from pyinfra import logger
from pyinfra.api import Host as PyinfraHost
from pyinfra.api import State
from pyinfra.context import ctx_state

from roles.balancer import read_key
from roles.checks import Check, Ending, HostOutcome, HostVerdict, clean, failed, table, verdict
from roles.checks.deploy import report_of, why_unfinished
from roles.fleet import Host
from roles.fleet.checked import command_options, was_checked
from roles.host.outcome import TRUST, UNTRUSTED, ssh_command
from roles.host.paths import UNIT_GLOB, unit_name
from roles.stages.crash import executed_operation, show_crashes_calmly, tell_crash
from roles.stages.members import planned_on
from roles.stages.progress import Key, Progress, read_durations, waited_for, write_durations
from roles.stages.run import Run
from roles.stages.runlog import RunLog
from roles.stages.screen import Screen, show_calmly

_ATTRIBUTE = "llm_ending"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STEP_LIMIT = 240
# How a message of the program that moves replicas begins if it has changed nothing.
_NOTHING_CHANGED = "nothing was changed: "
# Checks of a balancer that fail where no replica answers.
_NEED_REPLICAS = {"completion", "stream", "replicas"}


@dataclass(eq=False)
class RunEnd:
    """How the end of a run is told: on which screen, whether it is a dry run, and what interrupted
    it ("SIGINT"), whether an error that nobody foresaw ended it; `progress` is what is shown until
    then."""

    screen: Screen
    progress: Progress
    dry: bool = False
    interrupted: str = ""
    crashed: bool = False


def begin(state: State | None = None) -> None:
    """Make this pyinfra run end with a verdict, and its screen calm until then.

    For a project's config.py, which pyinfra reads first; `begin_run` does the same where that is
    another's. Other commands of pyinfra (`fact`, `exec`) are left as they are.
    """
    state, options = state or ctx_state.get(), command_options()
    # Without handlers, pyinfra is used as a library.
    if state is None or hasattr(state, _ATTRIBUTE) or not logger.handlers:
        return
    if not all(str(one).endswith(".py") for one in options.get("operations", ())):
        return
    screen = show_calmly(state, state.print_noop_info or bool(options.get("debug")))
    progress = Progress(state, screen.show_progress, in_place=screen.fancy)
    progress.start()
    end = RunEnd(screen, progress, dry=bool(options.get("dry")))
    show_crashes_calmly(partial(_crashed, state, end), None if screen.verbose else screen.log)
    setattr(state, _ATTRIBUTE, end)
    atexit.register(_finish, state, end)
    for number in _SIGNALS:
        signal.signal(number, lambda number, _: _interrupt(state, end, number))


def begin_run(run: Run) -> None:
    """Open the log of a run beside its report; see `begin`."""
    begin(run.state)
    end: RunEnd | None = getattr(run.state, _ATTRIBUTE, None)
    if end is not None and end.screen.log.path is None:
        _open_log(run, end.screen.log)
        end.progress.last |= read_durations(_folder(run))
        run.report.brief = not end.screen.verbose


def note(run: Run, text: str) -> None:
    """Write text to the log of a run alone."""
    end: RunEnd | None = getattr(run.state, _ATTRIBUTE, None)
    if end is not None:
        end.screen.log.write(f"{text}\n")


def changes_shown(run: Run) -> None:
    """Head pyinfra's table of changes with what it lacks: the moves of replicas, which are decided
    while the run executes."""
    end: RunEnd | None = getattr(run.state, _ATTRIBUTE, None)
    if end is not None:
        end.screen.beside = "beside those of replicas, which the plan above has"


def earlier_durations(run: Run) -> Mapping[Key, float]:
    """How long slow steps took in earlier runs, in seconds by host and step."""
    end: RunEnd | None = getattr(run.state, _ATTRIBUTE, None)
    return end.progress.last if end is not None else {}


def hide_keys(run: Run) -> None:
    """Keep the keys of a run out of its log, including those that it has made."""
    end: RunEnd | None = getattr(run.state, _ATTRIBUTE, None)
    if end is not None:
        end.screen.log.secrets = _keys(run)


def _open_log(run: Run, log: RunLog) -> None:
    try:
        log.open(_folder(run), run.id, _keys(run))
    except OSError as error:
        logger.warning(f"there is no log of this run: {error}")


def _keys(run: Run) -> list[str]:
    settings = run.fleet.settings
    owners = [settings.balancer, *(service.route for service in settings.services)]
    files = [one and (one.api_key_file, one.engine_key_file) for one in owners]
    named = {file for pair in files for file in pair or () if file is not None}
    return [read_key(file) for file in named if file.expanduser().exists()]


def _folder(run: Run) -> Path:
    return Path(run.state.cwd or ".") / run.fleet.settings.validation.report_dir


def _interrupt(state: State, end: RunEnd, number: int) -> None:
    """End the run in order. What hosts are doing goes on there."""
    end.interrupted = signal.Signals(number).name
    if state.is_executing:
        report_of(state).at_work = {host: work for (host, work), _ in waited_for(state)}
    lines = [f"Interrupted by {end.interrupted}.", *(_goes_on(state) if state.is_executing else ())]
    click.echo("\n    ".join(lines), err=True)
    if state.initialised:
        # Disconnecting needs a free place in the pool.
        state.pool.kill(block=False)
    sys.exit(128 + number)


def _goes_on(state: State) -> list[str]:
    """The work that hosts were given and may finish without this run."""
    return [
        f"{host} may go on by itself: {work}" + (f" ({', '.join(names)})" if names else "")
        for (host, work), names in waited_for(state)
    ]


def _is_ours(state: State) -> bool:
    """Whether the run has a fleet to give a verdict on, and a log."""
    if not state.initialised or not was_checked(state):
        return False
    # Hosts were connected, and no deploy of ours has begun.
    return not state.activated_hosts or Run.begun(state) is not None


def _crashed(state: State, end: RunEnd, error: BaseException) -> bool:
    """Show the error that ended the run, if the run has a log for its traceback."""
    if not _is_ours(state):
        return False
    end.crashed = True
    tell_crash(error, end.screen.log, end.screen.verbose, executed_operation(state))
    return True


def _finish(state: State, end: RunEnd) -> None:
    """Print the verdict, if the run has a fleet."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end.progress.stop()
    end.screen.close()
    if not _is_ours(state):
        return
    log, crashed = end.screen.log, False
    try:
        _tell_verdict(Run.of(state), end)
    except Exception as error:
        crashed = True
        tell_crash(error, log, end.screen.verbose)
    # The reader of the screen may be gone.
    with contextlib.suppress(OSError):
        if log.path:
            print(f"The whole log: {os.path.relpath(log.path)}", file=sys.stderr, flush=True)
        if crashed:
            sys.stdout.flush()
            # After the interpreter has begun to exit, only this sets the exit status.
            os._exit(1)


def _tell_verdict(run: Run, end: RunEnd) -> None:
    begin_run(run)
    text = verdict(verdicts(run, end), _ending(run, end), _command())
    _keep_durations(run, end.progress)
    checks = run.report.complete(partial(why_unfinished, run.state))
    end.screen.log.write(f"\nAll checks:\n{table(checks)}\n")
    with contextlib.suppress(OSError):
        print(f"\n{text}", file=sys.stderr)


def _keep_durations(run: Run, progress: Progress) -> None:
    if not progress.took:
        return
    names = [one.name for one in run.fleet.hosts]
    # Durations are only a help for the next run.
    with contextlib.suppress(OSError):
        write_durations(_folder(run), progress.last | progress.took, names)


def _command() -> str:
    """The command of this run for a shell; "the same command" if one of its words is secret."""
    words = sys.argv[1:]
    secret = any(word.startswith("--ssh") and "password" in word for word in words)
    return "the same command" if secret else shlex.join(["pyinfra", *words])


def _ending(run: Run, end: RunEnd) -> Ending:
    if end.interrupted:
        return "interrupted"
    if end.dry:
        return "dry"
    return "whole" if run.state.is_executing else "early"


def verdicts(run: Run, end: RunEnd) -> list[HostVerdict]:
    """The verdict on each host of the fleet, in the inventory's order."""
    run.seen.checked(run.report.checks)
    hosts = {one.name: one for one in run.state.inventory}
    return [_verdict(run, end, one, hosts[one.name]) for one in run.fleet.hosts]


def _verdict(run: Run, end: RunEnd, declared: Host, host: PyinfraHost) -> HostVerdict:
    outcome = _outcome(run, end, host)
    # A host that stopped before the run executed is as it was seen.
    begun = any(one.operation_meta.is_complete() for one in run.state.ops[host].values())
    broke = outcome == "FAILED" and begun
    names = [replica.name for replica in planned_on(run.fleet, declared.name)]
    seen = [run.seen.of(declared.name, name, broke) for name in names]
    return HostVerdict(
        declared.name,
        planned=len(names),
        serving=seen.count("serves"),
        unseen=seen.count(None),
        loading=seen.count("loading"),
        outcome=outcome,
        next_step=_next_step(run, end, host, outcome),
    )


def _outcome(run: Run, end: RunEnd, host: PyinfraHost) -> HostOutcome:
    state = run.state
    if not state.is_host_in_limit(host):
        return "left out by --limit"
    if host not in state.activated_hosts:
        # Before pyinfra connects, no host was tried.
        return "not reached" if host in state.failed_hosts or state.activated_hosts else "not begun"
    if host in state.failed_hosts:
        return "FAILED"
    if not state.is_executing:
        return _foreseen(run, host) if end.dry and not end.interrupted else "not begun"
    done = [one.operation_meta for one in state.ops[host].values()]
    if not all(one.is_complete() for one in done):
        return "not finished"
    if any(one.did_change() for one in done):
        return "changed"
    return "not updated" if run.rolling.left_behind(host.name) else "unchanged"


def _foreseen(run: Run, host: PyinfraHost) -> HostOutcome:
    """The outcome of a host in a dry run, by what the run would do there."""
    operations = [one.operation_meta for one in run.state.ops[host].values()]
    changes = host.name in run.would_change or any(one._maybe_is_change for one in operations)
    return "would change" if changes else "unchanged"


def _next_step(run: Run, end: RunEnd, host: PyinfraHost, outcome: HostOutcome) -> str:
    """The next step for a host that is not as planned; "" for one that is."""
    if outcome == "not reached":
        if host.connector_data.get(UNTRUSTED):
            return f"record the hosts' keys: {TRUST} {os.path.relpath(run.file)}; run again"
        ssh = ssh_command(host)
        return f"see that this works: {ssh}; run again" if ssh else "see why above; run again"
    if outcome == "not finished":
        first = "fix the error above; " if end.crashed else ""
        return f"{first}run again: what is done is not done again"
    if outcome == "not updated":
        names = run.rolling.failed_hosts_behind(host.name)
        return _mend_first(names) if names else "see the reason above; run again"
    if outcome in ("unchanged", "changed") and (out := run.left_out(host.name)):
        return f"{', '.join(out)} left out: see deploys/quarantine.py"
    if outcome in ("unchanged", "changed") and (left := run.unjoined(host.name)):
        return "; ".join(f"{name}: {reason}" for name, reason in left.items())
    return _mended_by(run, host) if outcome == "FAILED" else ""


def _mended_by(run: Run, host: PyinfraHost) -> str:
    """The next step for a host that failed: the host that it waits for, the remedy of its first
    failed check, or its reason."""
    own = [check for check in failed(run.report.checks) if check.host == host.name]
    if others := run.rolling.failed_hosts_behind(host.name) or _unserved(run, host.name, own):
        return _mend_first(others)
    if own:
        return _short(next((check.remedy for check in own if check.remedy), own[0].evidence))
    operation, reasons = _failed_operation(run.state, host), run.report.reasons.get(host.name, "")
    nothing = [one for one in reasons.splitlines() if one.startswith(_NOTHING_CHANGED)]
    if operation.startswith("Launch") and not nothing:
        units = " ".join(f"-u {one}" for one in _failed_units(run, host.name, reasons))
        journal = f"sudo journalctl {units} --no-pager -n 200"
        ssh = ssh_command(host)
        return f'{ssh} "{journal}"' if ssh else journal
    reason = next(iter([*nothing, *reasons.splitlines()]), "").removeprefix(_NOTHING_CHANGED)
    if reason:
        return _short(reason)
    return f"fix what stopped “{operation}”; run again" if operation else "see the reason above"


def _mend_first(hosts: Sequence[str]) -> str:
    return f"fix {', '.join(hosts)} first; run again"


def _unserved(run: Run, name: str, own: Sequence[Check]) -> list[str]:
    """The hosts that failed or whose replicas do not serve, if nothing else failed on a
    balancer."""
    if planned_on(run.fleet, name) or {check.name for check in own} - _NEED_REPLICAS or not own:
        return []
    broke = {one.name for one in run.state.failed_hosts}
    return [
        one.name
        for one in run.fleet.hosts
        if any(
            one.name in broke
            or run.seen.of(one.name, replica.name, failed=False) in ("down", "loading")
            for replica in planned_on(run.fleet, one.name)
        )
    ]


def _failed_units(run: Run, name: str, reasons: str) -> list[str]:
    """The units of the replicas that a failure names; those of all of them if it names none."""
    planned = [replica.name for replica in planned_on(run.fleet, name)]
    named = [one for one in planned if f"{one} does not serve" in reasons]
    turn = run.rolling.turns.get(name)
    ids = run.rolling.failures.get(name) or (turn.restarts if turn else ())
    named = named or sorted(id.partition("/")[2] for id in ids) or planned
    return list(map(unit_name, named)) or [f"'{UNIT_GLOB}'"]


def _failed_operation(state: State, host: PyinfraHost) -> str:
    for op_hash, data in state.ops[host].items():
        if data.operation_meta.is_complete() and data.operation_meta.did_error():
            return ", ".join(sorted(state.get_op_meta(op_hash).names))
    return ""


def _short(text: str) -> str:
    text = clean(text)
    return text if len(text) <= _STEP_LIMIT else f"{text[: _STEP_LIMIT - 1]}…"
