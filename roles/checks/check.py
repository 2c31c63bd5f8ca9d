"""What one check says of one subject. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

# From the best to the worst; `skipped` could not be seen, or does not matter here.
Outcome = Literal["skipped", "pass", "warn", "fail"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class Check:
    """The outcome of one check, with its evidence and what to do about it.

    `name` is stable. `subject` is what was checked: a replica, GPUs, an address, or the host
    itself. With `fail` a deploy cannot go on there, or what it left does not serve as planned;
    `warn` is to be known, and fails nothing.
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
    """The worst of some outcomes; `skipped` where there are none."""
    return OUTCOMES[max(map(rank, outcomes), default=0)]


def failed(checks: Iterable[Check]) -> list[Check]:
    """The checks that failed."""
    return [check for check in checks if check.outcome == "fail"]


def of_host(host: str, checks: Iterable[Check]) -> list[Check]:
    """Checks as those of a host; what has no subject is about the host itself."""
    return [replace(check, host=host, subject=check.subject or host) for check in checks]


def grouped(checks: Iterable[Check]) -> dict[str, list[Check]]:
    """Checks by their host, hosts and checks in the order in which they come."""
    found: dict[str, list[Check]] = {}
    for check in checks:
        found.setdefault(check.host, []).append(check)
    return found
