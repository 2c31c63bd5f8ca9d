"""The outcome of one check of one subject. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

# From best to worst. `skipped`: the check could not run, or does not apply.
Outcome = Literal["skipped", "pass", "warn", "fail"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class Check:
    """The outcome of one check, with its evidence and what to do about it.

    `name` is stable. `subject` is what was checked: a replica, GPUs, an address or the host.
    `fail`: a deploy cannot continue on this host, or the host does not serve as planned.
    `warn`: a person should know, but nothing fails.
    """

    name: str
    subject: str
    outcome: Outcome
    evidence: str
    remedy: str = ""
    host: str = ""


def rank(outcome: Outcome) -> int:
    """How bad an outcome is; the worst has the highest rank."""
    return OUTCOMES.index(outcome)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of some outcomes; `skipped` for an empty list."""
    return OUTCOMES[max(map(rank, outcomes), default=0)]


def failed(checks: Iterable[Check]) -> list[Check]:
    """The checks that failed."""
    return [check for check in checks if check.outcome == "fail"]


def of_host(host: str, checks: Iterable[Check]) -> list[Check]:
    """The checks with their host set; the host is the subject of a check that has none."""
    return [replace(check, host=host, subject=check.subject or host) for check in checks]


def grouped(checks: Iterable[Check]) -> dict[str, list[Check]]:
    """The checks by host; hosts and checks keep their order."""
    found: dict[str, list[Check]] = {}
    for check in checks:
        found.setdefault(check.host, []).append(check)
    return found
