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
MAX_ROUNDS = 4


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
    target: Callable[[], Target],
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

    + target: what is measured, asked when the run executes
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
    now = target()
    if not settings.measure or deployment(now.build).all_reduce_python(now.build) is None:
        host.noop(f"{len(now.hardware.interconnect)} verdicts")
        return
    result = _measure_plan(now, settings, anew, keep, replan, adopt)
    checks = interconnect_checks(now.plan, result.verdicts, result.answers)
    record(of_host(host.name, checks))
    if result.problem:
        yield failing(
            f"{result.problem}; nothing was started or stopped here, run again to deploy the new "
            f"one:\n"
            f"{explain_host(result.plan)}"
        )
        return
    host.noop(f"{len(result.verdicts)} verdicts")


@dataclass(frozen=True)
class MeasuredPlan:
    """Verdicts and the plan that goes by them, why the host cannot go on with it, or "", and what
    the host answered."""

    verdicts: Verdicts
    plan: HostPlan
    problem: str = ""
    answers: tuple[Measurement, ...] = ()


def _measure_plan(
    target: Target,
    settings: InterconnectSettings,
    anew: bool,
    keep: SaveVerdicts,
    replan: Replan,
    adopt: AdoptVerdicts,
) -> MeasuredPlan:
    """Measure until the plan wants nothing more."""
    result = MeasuredPlan(target.hardware.interconnect, target.plan)
    valid = () if anew else still_valid(result.verdicts, target.build, target.driver_version)
    measured_groups: set[tuple[int, ...]] = set()
    for _ in range(MAX_ROUNDS):
        hardware = replace(target.hardware, interconnect=result.verdicts)
        to_measure = unmeasured(result.plan, hardware, valid, target.build)
        groups = [one for one in to_measure if one.gpus not in measured_groups]
        if not groups:
            break
        measured_groups |= {group.gpus for group in groups}
        answer = _measure(groups, valid, target, settings)
        result = replace(
            result,
            answers=(*result.answers, answer),
            verdicts=merged(result.verdicts, valid, answer.verdicts),
        )
        valid = (*valid, *answer.verdicts)
        _report(answer, result.verdicts, anew)
        if not answer.verdicts:
            break
        _save(keep, result.verdicts)
        try:
            result = replace(result, plan=replan(result.verdicts))
        except ValueError as error:
            return replace(result, problem=str(error))
    if not measured_groups:
        return result
    return replace(result, problem=_adopt_plan(target, result, adopt))


def _save(keep: SaveVerdicts, verdicts: Verdicts) -> None:
    # An exception here would end the run for every host.
    try:
        keep(verdicts)
    except (ValueError, OSError) as error:
        warn(f"these verdicts could not be recorded: {error}")


def _adopt_plan(target: Target, result: MeasuredPlan, adopt: AdoptVerdicts) -> str:
    """Let the run go on with a plan in which P2P alone is another; "", or why it cannot."""
    if not adopt(result.verdicts):
        return "the verdicts change its plan"
    if result.plan.replicas == target.plan.replicas:
        return ""
    for before, after in zip(target.plan.replicas, result.plan.replicas, strict=True):
        if before.p2p != after.p2p:
            way = "with" if after.p2p else "without"
            say(f"{after.name} works {way} P2P from this run on")
    warn(
        "its plan is another now: a saved one has to be saved anew (--save), or accepted with "
        "--data accept_plan=true"
    )
    return ""


def _measure(
    groups: Sequence[Group],
    valid: Sequence[LinkVerdict],
    target: Target,
    settings: InterconnectSettings,
) -> Measurement:
    seconds = limit_s(groups, settings)
    lines = host.get_fact(
        AllReduces,
        engine=target.build,
        python=deployment(target.build).all_reduce_python(target.build),
        user=target.user,
        seconds=seconds,
        _stdin=SecretInput(program(groups, valid, target.build, settings, target.devices)),
        # For a host that hangs as a whole: the command has its own limits.
        _timeout=seconds + 90,
        _ignore_errors=True,
    )
    requested = [group.gpus for group in groups]
    return parse_answer(lines or (), target.build, target.driver_version, requested)


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
