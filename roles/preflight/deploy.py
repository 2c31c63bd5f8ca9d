"""Checks one host before anything is changed on it, and prints the result."""

from collections.abc import Callable, Mapping, Sequence

import click
from pyinfra import host

from roles.checks import Check, failed, of_host
from roles.hardware import HardwareReport
from roles.host import Sections
from roles.host.facts import TIMEOUT_S, unreadable
from roles.host.facts import Answers as MoreAnswers
from roles.host.outcome import say, stop
from roles.preflight.answers import parse_preflight
from roles.preflight.checks import checks, clock_difference, follow_up_parts
from roles.preflight.needs import HostNeeds
from roles.preflight.report import lines

_COLORS = {"fail": "red", "warn": "yellow"}


def preflight(
    answers: Mapping[str, Sections],
    report: HardwareReport,
    needs: HostNeeds,
    times: tuple[float, float],
    record: Callable[[Sequence[Check]], None],
    verbose: bool = False,
) -> list[Check] | None:
    """Check this host in the prepare phase, and print and record the checks.

    `answers` are the host's answers to the one question; `times` are when it was asked and when the
    answer was complete (seconds since 1970). Returns None where the host gave no usable answer: it
    has failed then. The caller must stop the host where `abort_reason` returns a reason.
    """
    if later := follow_up_parts(report, needs):
        more = host.get_fact(MoreAnswers, parts=later, _sudo=False, _timeout=TIMEOUT_S)
        if more is None or host in host.state.failed_hosts:
            return None
        answers = {**answers, **more}
    # An exception in a deploy file would end the run for every host.
    try:
        read = parse_preflight(answers)
        difference = clock_difference(*times, read)
        found = of_host(host.name, checks(read, report, needs, difference))
    except Exception as error:
        stop(unreadable("what a deploy needs of the host", error))
        return None
    for line in lines(found, verbose):
        say(_colored(line))
    record(found)
    return found


def abort_reason(found: Sequence[Check]) -> str | None:
    """The names of the failed checks, in one line; None where no check failed."""
    names = [check.name for check in failed(found)]
    return f"preflight: {', '.join(names)}" if names else None


def _colored(line: str) -> str:
    word = line.partition(" ")[0]
    if word not in _COLORS:
        return line
    return click.style(word, _COLORS[word]) + line.removeprefix(word)
