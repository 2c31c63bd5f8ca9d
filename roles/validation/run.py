"""The verdicts of a whole run, and the report at its very end.

pyinfra has no hook at the end of a run: it prints its results, disconnects and exits, or raises
somewhere before. A handler for the interpreter's exit comes after all of these, once, and cannot
change the exit status.
"""

import atexit
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyinfra.api.host import Host
from pyinfra.api.state import State

from roles.validation.report import table, write_reports
from roles.validation.verdicts import Verdict

REPORT_NAME = "validation"


@dataclass
class Run:
    """What is to be validated in this run and what came of it."""

    state: State
    folder: Path
    planned: dict[str, None] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    stopped: Mapping[str, str] = field(default_factory=dict)

    def plan(self, hosts: Iterable[str]) -> None:
        """Add names of hosts that must be validated, in the order of the report."""
        self.planned.update(dict.fromkeys(hosts))

    def record(self, verdicts: Sequence[Verdict]) -> None:
        """Add verdicts."""
        self.verdicts.extend(verdicts)

    def complete(self) -> list[Verdict]:
        """All verdicts in the planned order, with a failed one for each host that has none."""
        hosts = {host.name: host for host in self.state.inventory}
        found: list[Verdict] = []
        for name in self.planned:
            own = [verdict for verdict in self.verdicts if verdict.host == name]
            host = hosts.get(name)
            if not own and (host is None or self.state.is_host_in_limit(host)):
                why = self.stopped.get(name) or why_not(self.state, host)
                evidence = f"not validated: {why}"
                own = [Verdict(name, name, "host", "fail", evidence)]
            found += own
        return found

    def finish(self) -> None:
        """Print the table and write the files, unless nothing was meant to be executed (--dry)."""
        if not self.state.is_executing and self.state.active_hosts:
            return
        verdicts = self.complete()
        # pyinfra writes to stderr too; with --json its stdout must stay pure.
        print(f"\n--> Validation:\n{table(verdicts)}", file=sys.stderr)
        try:
            for path in write_reports(self.folder, REPORT_NAME, verdicts):
                print(f"written: {path}", file=sys.stderr)
        except OSError as error:
            print(f"The reports could not be written: {error}", file=sys.stderr)


_runs: list[Run] = []


def current(state: State, report_dir: str) -> Run:
    """The one run of this process; the first call sees to it that its report comes at the end."""
    if not _runs:
        _runs.append(Run(state, Path(state.cwd or ".") / report_dir))
        atexit.register(_runs[0].finish)
    return _runs[0]


def why_not(state: State, host: Host | None) -> str:
    """Why a host has no verdict."""
    if host is None:
        return "it is not in the inventory"
    if host not in state.activated_hosts:
        return "it could not be reached"
    for op_hash, data in state.ops[host].items():
        if data.operation_meta.is_complete() and data.operation_meta.did_error():
            names = ", ".join(sorted(state.get_op_meta(op_hash).names))
            return f"it stopped at “{names}”"
    if host in state.failed_hosts:
        return "it stopped before its first operation"
    return "the run ended before its turn"
