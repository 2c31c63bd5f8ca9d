"""The report of a pyinfra run, at its very end.

pyinfra has no hook at the end of a run: it prints its results, disconnects and exits, or raises
earlier. A handler of the interpreter's exit runs once, after all of these, and cannot change the
exit status.
"""

import atexit
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from pyinfra.api.host import Host
from pyinfra.api.state import State

from roles.checks.run_report import Report

_ATTRIBUTE = "llm_report"


def report_of(state: State) -> Report:
    """The report of a run, created by the first call.

    pyinfra's State keeps it: that is the only object that lives as long as the run.
    """
    return vars(state).setdefault(_ATTRIBUTE, Report())


def report_at_end(state: State, report_dir: str, planned: Iterable[str]) -> Report:
    """Make a run end with a report that names every planned host; return the report.

    A deploy file calls this first. Hosts that cannot be reached or that stop early are then in the
    report as failed. Hosts outside --limit are not in it.
    """
    report = report_of(state)
    report.plan(planned)
    if report.folder is None:
        report.folder = Path(state.cwd or ".") / report_dir
        atexit.register(_finish, state)
    return report


def _finish(state: State) -> None:
    """Print and write the report, unless the run executes nothing (--dry)."""
    if state.is_executing or not state.active_hosts:
        report_of(state).finish(partial(why_unfinished, state))


def why_unfinished(state: State, name: str) -> str | None:
    """Why the run did not finish on a host: "" if it did, None if --limit excludes the host."""
    host: Host | None = next((one for one in state.inventory if one.name == name), None)
    if host is None:
        return "it is not in the inventory"
    if not state.is_host_in_limit(host):
        return None
    if host not in state.activated_hosts:
        return "it could not be reached"
    operations = state.ops[host]
    if work := report_of(state).at_work.get(name):
        return f"the run ended while it was at “{work}”; it may go on by itself"
    for op_hash, data in operations.items():
        if data.operation_meta.is_complete() and data.operation_meta.did_error():
            names = ", ".join(sorted(state.get_op_meta(op_hash).names))
            return f"it stopped at “{names}”"
    if host in state.failed_hosts:
        return "it stopped before its first operation"
    if not all(data.operation_meta.is_complete() for data in operations.values()):
        return "the run ended before its turn"
    return ""
