"""Shows an internal error of a run in a few lines; its traceback goes to the log alone."""

import linecache
from collections.abc import Callable
from pathlib import Path
from traceback import format_exception, walk_tb
from types import FrameType
from typing import Any, TextIO

import click
import gevent
from pyinfra.api import State
from pyinfra_cli.exceptions import UnexpectedExternalError, UnexpectedInternalError, WrappedError

import roles
from roles.checks import clean
from roles.fleet.checked import RefusedError
from roles.stages.runlog import RunLog

_ROLES = Path(roles.__file__).parent
_LONGEST = 500


def crash_summary(error: BaseException, operation: str = "") -> list[str]:
    """A few lines about an error: what it is, whose it is, and the stage that it ended. `operation`
    was running then."""
    frames = list(walk_tb(error.__traceback__))
    own = [(frame, line) for frame, line in frames if _is_ours(frame)]
    words = clean(f"{type(error).__name__}: {error}"[:_LONGEST])
    if isinstance(error, OSError):
        first = f"This machine failed: {words}"
    elif own:
        first = f"This is a bug of pyinfra-llm: {words}"
    else:
        first = f"An error ended the run: {words}"
    place = _place(*(own or frames)[-1]) if frames else ""
    stage = f"“{operation}”" if operation else _deploy_line(frames)
    return [first, f"at {', '.join(part for part in (stage, place) if part)}"]


def _is_ours(frame: FrameType) -> bool:
    return Path(frame.f_code.co_filename).is_relative_to(_ROLES)


def _place(frame: FrameType, line: int) -> str:
    path = Path(frame.f_code.co_filename)
    short = path.relative_to(_ROLES.parent) if _is_ours(frame) else path
    return f"{short} line {line}"


def _deploy_line(frames: list[tuple[FrameType, int]]) -> str:
    """The line of the deploy file that raised an error, "" if none did."""
    callers = [frame.f_code.co_name for frame, _ in frames]
    for caller, (frame, line) in zip(callers, frames[1:], strict=False):
        if caller == "exec_file":
            file = frame.f_code.co_filename
            return f"“{linecache.getline(file, line).strip()}” of {Path(file).name} line {line}"
    return ""


def executed_operation(state: State) -> str:
    """The operation that has started and that some hosts have not finished; "" for none."""
    if not state.is_executing:
        return ""
    for op_hash in state.get_op_order():
        own = [state.ops[host].get(op_hash) for host in state.active_hosts]
        if any(one is not None and not one.operation_meta.is_complete() for one in own):
            return ", ".join(sorted(state.get_op_meta(op_hash).names))
    return ""


def show_crashes_calmly(tell: Callable[[BaseException], bool], log: RunLog | None) -> None:
    """Make pyinfra show internal errors by `tell`, or as usual where that returns False.

    Tracebacks of hosts in the same step go to the log, if there is one.
    """
    for kind in (UnexpectedExternalError, UnexpectedInternalError):
        _show_by(tell, kind)
    _show_by(_tell_refusal, WrappedError)
    if log is not None:
        gevent.get_hub().exception_stream = log  # type: ignore[assignment]


def _show_by(tell: Callable[[BaseException], bool], kind: type[Any]) -> None:
    original = kind.show

    def show(self: Any, file: TextIO | None = None) -> None:
        if not tell(self.exception):
            original(self, file)

    kind.show = show


def _tell_refusal(error: BaseException) -> bool:
    """Show a refusal of ours. pyinfra would put the file and line that raised it first."""
    if isinstance(error, RefusedError):
        error.show()
    return isinstance(error, RefusedError)


def tell_crash(error: BaseException, log: RunLog, verbose: bool, operation: str = "") -> None:
    """Show the summary of an error; its traceback goes to the log, and with `verbose` to the
    screen."""
    traceback = "".join(format_exception(error))
    if verbose:
        click.echo(traceback, err=True)
    else:
        log.write(traceback)
    first, *rest = crash_summary(error, operation)
    lines = [f"--> {click.style(first, 'red', bold=True)}", *rest]
    lines.append("The log has its traceback; a bug is best reported with the whole log.")
    click.echo("\n    ".join(lines), err=True)
