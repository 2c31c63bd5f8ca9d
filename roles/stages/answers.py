"""The one question to each host of a run, and what roles read from its answer.

An answer is valid until the host is changed. Then the run forgets it, and a role asks again by its
own fact.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pyinfra import host

from roles.balancer import PART as BALANCER
from roles.balancer import parse_part as parse_balancer
from roles.driver import PART as DRIVER
from roles.driver import DriverState
from roles.driver import parse_state as parse_driver
from roles.engine import Installed, parse_installed
from roles.hardware import PART as HARDWARE
from roles.hardware import HardwareReport, parse_report
from roles.host import Part, Sections
from roles.host.facts import TIMEOUT_S, Answers, unreadable
from roles.host.outcome import stop
from roles.launch import PART as LAUNCH
from roles.launch import LaunchState
from roles.launch import parse_state as parse_launch
from roles.stages.run import Run
from roles.tuning import PART as TUNING
from roles.tuning import HostTuning
from roles.tuning import parse_state as parse_tuning
from roles.watchdog import PART as WATCHDOG
from roles.watchdog import WatchdogState
from roles.watchdog import parse_state as parse_watchdog

_QUESTION = "question"
# For how many seconds an answer is valid: a person may think about the plan before the run goes on.
HOLDS_S = 120


@dataclass(frozen=True)
class Answered:
    """A host's answers by part, its report, and when it was asked and had answered (seconds since
    1970)."""

    answers: Mapping[str, Sections]
    report: HardwareReport
    asked_at: float
    answered_at: float


def ask(run: Run, parts: Iterable[Part]) -> Answered | None:
    """Ask this host all parts in one command, once a run; None where it gave no answer, and has
    failed."""
    return run.answer(host.name, _QUESTION, lambda: _ask(run, (HARDWARE, *parts)))


def _ask(run: Run, parts: Iterable[Part]) -> Answered | None:
    asked_at = time.time()
    answers = host.get_fact(Answers, parts=tuple(parts), _sudo=False, _timeout=TIMEOUT_S)
    if answers is None or host in host.state.failed_hosts:
        return None
    try:
        report = parse_report(answers.get(HARDWARE.name, {}))
    # An exception in a deploy file would end the run for every host.
    except Exception as error:
        stop(unreadable("the host's hardware", error))
        return None
    found = Answered(answers, report, asked_at, time.time())
    if state := _launch_state(found):
        run.saw(host.name, state)
    return found


def ask_balancer(run: Run) -> None:
    """Note the state of this balancer, if it serves and can be read."""
    answered = ask(run, (BALANCER,))
    sections = answered.answers.get(BALANCER.name) if answered else None
    state = None if sections is None else _read(lambda: parse_balancer(sections))
    if state is not None:
        run.balancers[host.name] = state


def has_answered(run: Run, name: str) -> bool:
    """Whether the run has a host's answer and has not changed the host since."""
    return run.known(name, _QUESTION) is not None


def driver_state(run: Run, name: str) -> DriverState | None:
    """The driver's state that a host reported; None where that is unknown or too old."""
    found = _known(run, name, DRIVER.name)
    return _read(lambda: parse_driver(found.answers[DRIVER.name], found.report)) if found else None


def tuning_state(run: Run, name: str) -> HostTuning | None:
    """The tuning's state that a host reported; None where that is unknown or too old."""
    found = _known(run, name, TUNING.name)
    return _read(lambda: parse_tuning(found.answers[TUNING.name], found.report)) if found else None


def launch_state(run: Run, name: str) -> LaunchState | None:
    """The launch state that a host reported; None where that is unknown or too old."""
    found = _known(run, name, LAUNCH.name)
    return _launch_state(found) if found else None


def _launch_state(found: Answered) -> LaunchState | None:
    sections = found.answers.get(LAUNCH.name)
    return None if sections is None else _read(lambda: parse_launch(sections))


def installed_engines(run: Run, name: str) -> Installed | None:
    """The installed engines that a host reported; None where that is unknown or too old."""
    found = _known(run, name, "engines")
    return _read(lambda: parse_installed(found.answers["engines"])) if found else None


def watchdog_state(run: Run, name: str) -> WatchdogState | None:
    """The watchdog that a host reported; None where that is unknown or too old."""
    found = _known(run, name, WATCHDOG.name)
    return _read(lambda: parse_watchdog(found.answers[WATCHDOG.name])) if found else None


def _known(run: Run, name: str, part: str) -> Answered | None:
    found: Answered | None = run.known(name, _QUESTION)
    if found is None or part not in found.answers:
        return None
    return found if time.time() - found.answered_at < HOLDS_S else None


def _read(parse):
    """The result of a parser; None where it fails: the role's own fact reports the reason then."""
    try:
        return parse()
    except Exception:
        return None
