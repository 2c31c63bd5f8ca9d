"""Looks at one host before anything is changed on it, tells what was seen, and keeps it as JSON."""

import time
from collections.abc import Sequence
from pathlib import Path

import click
from pyinfra import host
from pyinfra.api import State

from roles.hardware import HostReport
from roles.preflight.case import Check, stop
from roles.preflight.checks import checks, clock_difference, questions
from roles.preflight.facts import Answers
from roles.preflight.needs import HostNeeds
from roles.preflight.report import lines, stops, to_json

REPORT_NAME = "preflight.json"
# The script has its own limits; this is for a host that hangs as a whole.
_TIMEOUT_S = 150
_COLORS = {"stop": "red", "warning": "yellow"}

# pyinfra leaves such hosts out before any deploy file runs.
UNREACHED = stop("connection", "the host could not be reached, or gave no report", "see above")

_seen: dict[State, dict[str, tuple[Check, ...]]] = {}


def preflight(
    report: HostReport, needs: HostNeeds, folder: Path, verbose: bool = False
) -> tuple[Check, ...] | None:
    """Check this host in the prepare phase: printed, and written to `folder`/preflight.json.

    None where it gave no answers; then pyinfra has failed it. It is for the caller to stop a host
    for which `stopped_by` says something.
    """
    asked_at = time.time()
    answers = host.get_fact(
        Answers, questions=questions(report, needs), _sudo=False, _timeout=_TIMEOUT_S
    )
    if answers is None or host in host.state.failed_hosts:
        return None
    difference = clock_difference(asked_at, time.time(), answers)
    found = checks(answers, report, needs, difference)
    for line in lines(found, verbose):
        click.echo(f"{host.print_prefix}{_colored(line)}")
    _keep(folder, found)
    return found


def stopped_by(found: Sequence[Check]) -> str | None:
    """Why a host must not go on, in one line; None where it may."""
    names = [check.name for check in stops(found)]
    return f"preflight: {', '.join(names)}" if names else None


def _colored(line: str) -> str:
    word = line.partition(" ")[0]
    if word not in _COLORS:
        return line
    return click.style(word, _COLORS[word]) + line.removeprefix(word)


def _keep(folder: Path, found: tuple[Check, ...]) -> None:
    """Write what is known of all hosts of this run so far, by a rename."""
    hosts = _seen.setdefault(host.state, {})
    hosts[host.name] = found
    for other in host.state.failed_hosts:
        hosts.setdefault(other.name, (UNREACHED,))
    file = folder / REPORT_NAME
    partial = file.with_suffix(".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(to_json(hosts), encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        click.echo(f"{file} could not be written: {error}", err=True)
