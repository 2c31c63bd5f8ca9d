"""The checks of one run, and the report at its end."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roles.checks.check import Check, failed, grouped, of_host
from roles.checks.report import MAX_CELL_LENGTH, brief, clean, table, write_reports

REPORT_NAME = "report"
# Returns, for a host's name, why the run did not finish on it: "" if it did, None if the run
# excludes the host.
WhyUnfinished = Callable[[str], str | None]


@dataclass
class Report:
    """The checks of one run, and the report about them.

    `run` is the run's id. `folder` is where the files go, None for no files. `planned` are the
    hosts that must be in the report, in its order. `reasons` says, by host, why it was stopped.
    `brief`: the screen shows failures already, so the end does not repeat them. `at_work` says, by
    host, what an interrupted run left it at.
    """

    run: str | None = None
    folder: Path | None = None
    planned: dict[str, None] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    brief: bool = False
    at_work: dict[str, str] = field(default_factory=dict)

    def plan(self, hosts: Iterable[str]) -> None:
        """Add names of hosts that must be in the report."""
        self.planned.update(dict.fromkeys(hosts))

    def record(self, checks: Sequence[Check]) -> None:
        """Add checks, each with its host."""
        self.plan(check.host for check in checks)
        self.checks.extend(checks)

    def stop(self, host: str, reason: str) -> None:
        """Note why a host was stopped; the first reason counts."""
        self.reasons.setdefault(host, reason)

    def complete(self, why_unfinished: WhyUnfinished) -> list[Check]:
        """All checks in the planned order.

        A host that was stopped or never checked, and that has no failed check, gets one.
        """
        checks: list[Check] = []
        by_host = grouped(self.checks)
        for name in self.planned:
            own = by_host.get(name, [])
            checks += own
            if failed(own) or (why := why_unfinished(name)) is None:
                continue
            if why or not own:
                checks += of_host(name, [self._unfinished(name, why or "nothing was checked")])
        return checks

    def _unfinished(self, name: str, why: str) -> Check:
        # A reason may continue with a whole plan.
        first = next(iter(self.reasons.get(name, "").splitlines()), "")
        evidence = f"{why}: {clean(first[:MAX_CELL_LENGTH])}" if first else why
        return Check("host", "", "fail", evidence, self._remedy(name, bool(first)))

    def _remedy(self, name: str, stopped: bool) -> str:
        if name in self.at_work:
            return "Wait until it is done, then run again."
        if stopped:
            return "Repair that, then run again."
        return "Run again: what is done is not done again."

    def finish(self, why_unfinished: WhyUnfinished) -> None:
        """Print the table, and write the files."""
        checks = self.complete(why_unfinished)
        shown = brief(checks) if self.brief else table(checks)
        # pyinfra writes to stderr too; with --json its stdout must stay pure.
        print(f"\n--> Report:\n{shown}", file=sys.stderr)
        if self.folder is None:
            return
        try:
            for path in write_reports(self.folder, REPORT_NAME, checks, self.run):
                print(f"written: {path}", file=sys.stderr)
        except OSError as error:
            print(f"The reports could not be written: {error}", file=sys.stderr)
