"""Checks as text for a person, and as JSON for programs. Pure."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from roles.preflight.case import Check, Severity

SEVERITIES: tuple[Severity, ...] = ("stop", "warning", "ok", "skipped")
# In a terminal these could move the cursor.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def clean(text: str) -> str:
    """One line of text, as hosts may print anything."""
    return _CONTROL.sub(" ", text).strip()


def stops(checks: Sequence[Check]) -> list[Check]:
    """The checks with which a host must not go on."""
    return [check for check in checks if check.severity == "stop"]


def lines(checks: Sequence[Check], verbose: bool = False) -> list[str]:
    """A short table, the gravest first: stops and warnings, and how many passed."""
    shown = SEVERITIES if verbose else SEVERITIES[:2]
    told = sorted(
        (check for check in checks if check.severity in shown or check.news),
        key=lambda check: SEVERITIES.index(check.severity),
    )
    width = max((len(clean(check.name)) for check in told), default=0)
    found = []
    for check in told:
        name = clean(check.name).ljust(width)
        found.append(f"{check.severity:<7}  {name}  {clean(check.seen)}")
        if check.remedy:
            found.append(f"{'':7}  {'':{width}}  → {clean(check.remedy)}")
    return [*found, counted(checks)]


def counted(checks: Sequence[Check]) -> str:
    """How many checks ended how."""
    counts = Counter(check.severity for check in checks)
    passed, warned = counts["ok"], counts["warning"]
    told = [f"{passed} {'check' if passed == 1 else 'checks'} passed"]
    if warned:
        told.append(f"{warned} {'warning' if warned == 1 else 'warnings'}")
    if counts["stop"]:
        told.append(f"{counts['stop']} to mend first")
    if counts["skipped"]:
        told.append(f"{counts['skipped']} skipped")
    return ", ".join(told)


def to_json(hosts: Mapping[str, Sequence[Check]]) -> str:
    """{"hosts": {NAME: {"may_go_on": …, "checks": [{name, severity, seen, remedy}]}}}."""
    data = {
        "hosts": {
            name: {
                "may_go_on": not stops(checks),
                "checks": [
                    {key: value for key, value in asdict(check).items() if key != "news"}
                    for check in checks
                ],
            }
            for name, checks in sorted(hosts.items())
        }
    }
    return json.dumps(data, indent=2) + "\n"
