"""The operation that measures how a host's GPUs reach each other, and adapts its plan."""

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
# A new plan may use other groups of GPUs, which are measured in the same run. A plan may change so
# often.
MAX_ROUNDS = 4


@dataclass(frozen=True)
class Target:
    """What is measured: a service's plan on a host, and the engine that will run it there.

    `hardware` has the host's GPUs and the recorded verdicts, `user` runs the replicas, `devices`
    maps a GPU's index to the name that CUDA knows it by, where that is another.
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
    Measure all-reduces over the GPUs of each planned replica without a valid verdict, before its
    engine starts. Where P2P does not work it is turned off in this run. A verdict that changes more
    of the plan fails the host, and its old replicas go on serving. GPUs of replicas that serve are
    not measured, even if their engine or driver has changed: recorded verdicts stay in use for them
    until a run finds those replicas stopped.

    + target: returns what is measured; called when the run executes
    + settings: whether and how long to measure
    + anew: measure everything again
    + keep: records verdicts
    + replan: returns the host's plan with these verdicts; ValueError where there is none
    + adopt: makes the run use these verdicts if they change only P2P, and says whether it did
    + record: takes all checks
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
    """The plan that follows from the verdicts, and what the host answered.

    `problem` says why this run cannot go on with the plan; "" where it can.
    """

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
    """Measure until every group of the plan has a verdict."""
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
    """Make the run use a plan that differs in P2P alone; returns why it cannot, or ""."""
    if not adopt(result.verdicts):
        return "the verdicts change its plan"
    if result.plan.placed == target.plan.placed:
        return ""
    for before, after in zip(target.plan.placed, result.plan.placed, strict=True):
        if before.p2p != after.p2p:
            way = "with" if after.p2p else "without"
            say(f"{after.name} works {way} P2P from this run on")
    warn(
        "its plan has changed: save a saved plan again (--save), or accept it with "
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
        # The command has its own limits; this one is for a host that hangs as a whole.
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
    # An older verdict is enough until the replicas stop: engines are upgraded while they serve.
    busy = [",".join(map(str, gpus)) for gpus in answer.busy if gpus not in recorded]
    if busy:
        warn(
            f"GPUs {' and '.join(busy)} were not measured, as replicas serve from them: the plan "
            "uses what is recorded. To measure them, stop these replicas and run again"
        )
    for problem in answer.problems:
        warn(f"not measured: {problem}; the plan uses what is recorded")
