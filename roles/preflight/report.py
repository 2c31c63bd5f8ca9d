"""One host's checks as lines of text, for print during the run. Pure."""

from collections import Counter
from collections.abc import Sequence

from roles.checks import Check, Outcome, clean, rank
from roles.preflight.context import DRIVER_INSTALLATION

_SHOWN: tuple[Outcome, ...] = ("fail", "warn")


def lines(checks: Sequence[Check], verbose: bool = False) -> list[str]:
    """A table of failed checks and warnings, the worst first, and a count of all checks.

    It is empty where every check passed: the report at the end of the run counts those.
    """
    shown = sorted(
        (check for check in checks if verbose or _is_shown(check)),
        key=lambda check: -rank(check.outcome),
    )
    width = max((len(clean(check.name)) for check in shown), default=0)
    found = []
    for check in shown:
        name = clean(check.name).ljust(width)
        found.append(f"{check.outcome:<7}  {name}  {clean(check.evidence)}")
        if check.remedy:
            found.append(f"{'':7}  {'':{width}}  → {clean(check.remedy)}")
    return [*found, summary(checks)] if found else []


def _is_shown(check: Check) -> bool:
    return check.outcome in _SHOWN or check.name == DRIVER_INSTALLATION


def summary(checks: Sequence[Check]) -> str:
    """How many checks had each outcome."""
    counts = Counter(check.outcome for check in checks)
    passed, warned = counts["pass"], counts["warn"]
    parts = [f"{passed} {'check' if passed == 1 else 'checks'} passed"]
    if warned:
        parts.append(f"{warned} {'warning' if warned == 1 else 'warnings'}")
    if counts["fail"]:
        parts.append(f"{counts['fail']} to fix first")
    if counts["skipped"]:
        parts.append(f"{counts['skipped']} skipped")
    return ", ".join(parts)
