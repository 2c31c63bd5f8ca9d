"""Measures how a host's GPUs reach each other, and lets its launch follow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pyinfra import host
from pyinfra.api import operation

from roles.checks import Check, of_host
from roles.engine import Build, deployment
from roles.hardware import Hardware, LinkVerdict
from roles.host import SecretInput
from roles.host.outcome import failing, say, warn
from roles.interconnect.checks import interconnect_checks
from roles.interconnect.facts import AllReduces
from roles.interconnect.program import limit_s, program
from roles.interconnect.settings import InterconnectSettings
from roles.interconnect.verdicts import (
    Group,
    Measurement,
    merged,
    parse_answer,
    still_valid,
    summaries,
    unmeasured,
)
from roles.plan import HostPlan
from roles.topology import explain_host

Verdicts = tuple[LinkVerdict, ...]
Replan = Callable[[Verdicts], HostPlan]
SaveVerdicts = Callable[[Verdicts], None]
AdoptVerdicts = Callable[[Verdicts], bool]
RecordChecks = Callable[[Sequence[Check]], None]
# A new plan may want other GPUs; what it wants is measured in the same run, so often.
MOST_ROUNDS = 4


@dataclass(frozen=True)
class Target:
    """What is measured: a service's plan on a host, with the engine that will run it there.

    `hardware` are the GPUs that the plan is of, with the verdicts that are recorded; `user` runs
    the replicas, `devices` is what CUDA calls a GPU where that is not its index.
    """

    plan: HostPlan
    hardware: Hardware
    build: Build
    user: str
    devices: Mapping[int, str]
    driver_version: str | None


@operation()
def measure_links(
    subject: Callable[[], Target],
    settings: InterconnectSettings,
    anew: bool,
    keep: SaveVerdicts,
    replan: Replan,
    adopt: AdoptVerdicts,
    record: RecordChecks,
):
    """
    Measure all-reduces over the GPUs of each planned replica of which no verdict counts, before its
    engine starts. P2P is turned off in this run where it does not work; a verdict that changes more
    of the plan fails the host, and its old replicas serve on. GPUs from which replicas serve are
    not measured, though their engine or driver is another by now: what was recorded before counts
    for them, or nothing, until a run finds those replicas stopped.

    + subject: what is measured, asked when the run executes
    + settings: whether, and how long
    + anew: measure all again
    + keep: records verdicts
    + replan: the host's plan with other verdicts; ValueError where there is none
    + adopt: lets the run go on with verdicts; whether it does, as P2P alone changes
    + record: takes the checks, of whatever outcome
    """
    if not host.state.is_executing:
        host.noop("the interconnect is measured when the run executes")
        return
    now = subject()
    if not settings.measure or deployment(now.build).all_reduce_python(now.build) is None:
        host.noop(f"{len(now.hardware.interconnect)} verdicts")
        return
    found = _settle(now, settings, anew, keep, replan, adopt)
    checks = interconnect_checks(now.plan, found.verdicts, found.answers)
    record(of_host(host.name, checks))
    if found.problem:
        yield failing(
            f"{found.problem}; nothing was started or stopped here, run again to deploy the new one:\n"
            f"{explain_host(found.plan)}"
        )
        return
    host.noop(f"{len(found.verdicts)} verdicts")


@dataclass(frozen=True)
class Settlement:
    """Verdicts and the plan that goes by them, why the host cannot go on with it, or "", and what
    the host answered."""

    verdicts: Verdicts
    plan: HostPlan
    problem: str = ""
    answers: tuple[Measurement, ...] = ()


def _settle(
    subject: Target,
    settings: InterconnectSettings,
    anew: bool,
    keep: SaveVerdicts,
    replan: Replan,
    adopt: AdoptVerdicts,
) -> Settlement:
    """Measure until the plan wants nothing more."""
    found = Settlement(subject.hardware.interconnect, subject.plan)
    known = () if anew else still_valid(found.verdicts, subject.build, subject.driver_version)
    asked: set[tuple[int, ...]] = set()
    for _ in range(MOST_ROUNDS):
        now = replace(subject.hardware, interconnect=found.verdicts)
        wanted = unmeasured(found.plan, now, known, subject.build)
        groups = [one for one in wanted if one.gpus not in asked]
        if not groups:
            break
        asked |= {group.gpus for group in groups}
        answer = _measure(groups, known, subject, settings)
        found = replace(
            found,
            answers=(*found.answers, answer),
            verdicts=merged(found.verdicts, known, answer.verdicts),
        )
        known = (*known, *answer.verdicts)
        _report(answer, found.verdicts, anew)
        if not answer.verdicts:
            break
        _save(keep, found.verdicts)
        try:
            found = replace(found, plan=replan(found.verdicts))
        except ValueError as error:
            return replace(found, why=str(error))
    return replace(found, why=_adopt_plan(subject, found, adopt)) if asked else found


def _save(keep: SaveVerdicts, verdicts: Verdicts) -> None:
    # An exception here would end the run for every host.
    try:
        keep(verdicts)
    except (ValueError, OSError) as error:
        warn(f"these verdicts could not be recorded: {error}")


def _adopt_plan(subject: Target, found: Settlement, adopt: AdoptVerdicts) -> str:
    """Let the run go on with a plan in which P2P alone is another; "", or why it cannot."""
    if not adopt(found.verdicts):
        return "the verdicts change its plan"
    if found.plan.replicas == subject.plan.replicas:
        return ""
    for before, now in zip(subject.plan.replicas, found.plan.replicas, strict=True):
        if before.p2p != now.p2p:
            way = "with" if now.p2p else "without"
            say(f"{now.name} works {way} P2P from this run on")
    warn(
        "its plan is another now: a saved one has to be saved anew (--save), or accepted with "
        "--data accept_plan=true"
    )
    return ""


def _measure(
    groups: Sequence[Group],
    known: Sequence[LinkVerdict],
    subject: Target,
    settings: InterconnectSettings,
) -> Measurement:
    seconds = limit_s(groups, settings)
    lines = host.get_fact(
        AllReduces,
        engine=subject.build,
        python=deployment(subject.build).all_reduce_python(subject.build),
        user=subject.user,
        seconds=seconds,
        _stdin=SecretInput(program(groups, known, subject.build, settings, subject.devices)),
        # For a host that hangs as a whole: the command has its own limits.
        _timeout=seconds + 90,
        _ignore_errors=True,
    )
    asked = [group.gpus for group in groups]
    return parse_answer(lines or (), subject.build, subject.driver_version, asked)


def _report(answer: Measurement, verdicts: Sequence[LinkVerdict], anew: bool) -> None:
    groups = dict.fromkeys(one.gpus for one in answer.verdicts)
    for line in summaries(verdicts, groups):
        say(line)
    recorded = set() if anew else {one.gpus for one in verdicts}
    # An older verdict does until the replicas stop: an engine's upgrade comes while they serve.
    busy = [",".join(map(str, gpus)) for gpus in answer.busy if gpus not in recorded]
    if busy:
        warn(
            f"GPUs {' and '.join(busy)} were not measured, as replicas serve from them: the plan "
            "goes by what is recorded. To measure them, stop these replicas and run again"
        )
    for problem in answer.problems:
        warn(f"not measured: {problem}; the plan goes by what is recorded")
