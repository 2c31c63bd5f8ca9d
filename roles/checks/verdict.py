"""The verdict at the end of a run: each host's outcome and next step, and what serves. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from roles.checks.report import clean

HostOutcome = Literal[
    "unchanged",
    "changed",
    "would change",
    "not updated",
    "not begun",
    "not finished",
    "not reached",
    "FAILED",
    "left out by --limit",
]
# How a run ended: completely, early by itself, by a signal, or as a dry run.
Ending = Literal["whole", "early", "interrupted", "dry"]
_FAILURES: dict[HostOutcome, str] = {
    "FAILED": "FAILED",
    "not reached": "FAILED, not reached",
    "not finished": "NOT FINISHED",
}
HEADER = ("HOST", "REPLICAS", "OUTCOME", "NEXT STEP")
UNSEEN = "?"


@dataclass(frozen=True)
class HostVerdict:
    """The outcome of a host.

    `planned` replicas should run there. The run saw `serving` of them serve and `loading` not ready
    yet, and did not see the state of `unseen`. `next_step` is a command or an action, "" if there
    is none.
    """

    host: str
    planned: int
    serving: int
    unseen: int
    outcome: HostOutcome
    next_step: str = ""
    loading: int = 0


def verdict(rows: Sequence[HostVerdict], ending: Ending = "whole", command: str = "") -> str:
    """A table of all hosts, and one line that sums it up; after an interruption it ends with the
    run's command, which goes on where the run ended."""
    again = f" Next: {command}" if ending == "interrupted" and command else ""
    return f"{_table(rows)}\n\n{summary_line(rows, ending)}{again}"


def summary_line(rows: Sequence[HostVerdict], ending: Ending = "whole") -> str:
    """The outcome of the run, and how many replicas serve."""
    return " ".join(part for part in (_outcome(rows, ending), _replicas(rows)) if part)


def _outcome(rows: Sequence[HostVerdict], ending: Ending) -> str:
    sentences = []
    if ending == "interrupted":
        sentences.append("INTERRUPTED.")
    for outcome, label in _FAILURES.items():
        if names := _names(rows, outcome):
            sentences.append(f"{label}: {names}.")
    begun = any(row.outcome not in ("not begun", "left out by --limit") for row in rows)
    if ending == "early" and not begun:
        sentences.append("FAILED before anything was changed.")
    if changed := _names(rows, "changed"):
        sentences.append(f"Changed: {changed}.")
    elif ending == "dry":
        sentences.append("A dry run: nothing was changed.")
        if would := _names(rows, "would change"):
            sentences.append(f"Would change: {would}.")
    elif not sentences:
        sentences.append("Nothing changed.")
    if not_updated := _names(rows, "not updated"):
        sentences.append(f"Not updated: {not_updated}.")
    return " ".join(sentences)


def _names(rows: Sequence[HostVerdict], outcome: HostOutcome) -> str:
    return ", ".join(row.host for row in rows if row.outcome == outcome)


def _replicas(rows: Sequence[HostVerdict]) -> str:
    planned, unseen = sum(row.planned for row in rows), sum(row.unseen for row in rows)
    if not planned:
        return ""
    if unseen == planned:
        return f"The {planned} replicas were not looked at."
    serving = sum(row.serving for row in rows)
    loading = sum(row.loading for row in rows)
    parts = [f"{serving} of {planned} {'replica serves' if planned == 1 else 'replicas serve'}"]
    if loading:
        parts.append(f"{loading} {'is' if loading == 1 else 'are'} loading")
    if unseen:
        parts.append(f"of {unseen} it was not seen")
    return f"{'; '.join(parts)}."


def _table(rows: Sequence[HostVerdict]) -> str:
    cells = [HEADER, *(tuple(map(clean, _cells(row))) for row in rows)]
    if all(row.unseen == row.planned for row in rows):
        # Nothing but question marks: the last line says it.
        cells = [(host, *more) for host, _, *more in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def _cells(row: HostVerdict) -> tuple[str, ...]:
    return row.host, _counted(row), row.outcome, row.next_step


def _counted(row: HostVerdict) -> str:
    """Serving, loading and planned replicas; a question mark stands for those whose state is
    unknown."""
    if not row.planned:
        return "-"
    if row.unseen == row.planned:
        return f"{UNSEEN} / {row.planned}"
    more = f" + {row.loading} loading" if row.loading else ""
    more += f" + {UNSEEN}" if row.unseen else ""
    return f"{row.serving}{more} / {row.planned}"
