"""Measures how a host's GPUs reach each other, and lets its launch follow."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import click
from pyinfra import host, logger
from pyinfra.api import FunctionCommand, State, operation
from pyinfra.api.host import Host

from roles.hardware import Hardware, LinkVerdict
from roles.host import SecretInput
from roles.interconnect.facts import AllReduces
from roles.interconnect.program import limit_s, program
from roles.interconnect.settings import InterconnectSettings
from roles.interconnect.verdicts import (
    Group,
    Measured,
    merged,
    parse_answer,
    told,
    unmeasured,
    valid,
)
from roles.launch import HostLaunch
from roles.plan import HostPlan, with_p2p_of
from roles.topology import explain_host

Verdicts = tuple[LinkVerdict, ...]
Replan = Callable[[Verdicts], HostPlan]
Keep = Callable[[Verdicts], None]
# A new plan may want other GPUs; what it wants is measured in the same run, so often.
MOST_ROUNDS = 4


@operation()
def measured(
    launch: HostLaunch,
    hardware: Hardware,
    settings: InterconnectSettings,
    anew: bool,
    keep: Keep,
    replan: Replan,
):
    """
    Measure all-reduces over the GPUs of each planned replica of which no verdict counts, before its
    engine starts. P2P is turned off in this run where it does not work; a verdict that changes more
    of the plan fails the host, and its old replicas serve on. GPUs from which replicas serve are
    not measured, though their engine or driver is another by now: what was recorded before counts
    for them, or nothing, until a run finds those replicas stopped.

    + launch: the host's launch; its plan is replaced where only P2P changes
    + hardware: the GPUs that the plan is of, with the verdicts that are recorded
    + settings: whether, and how long
    + anew: measure all again
    + keep: records verdicts
    + replan: the host's plan with other verdicts; ValueError where there is none
    """
    if not host.state.is_executing:
        host.noop("the interconnect is measured when the run executes")
        return
    verdicts = hardware.interconnect
    if settings.measure:
        verdicts, plan, why = _settled(launch, hardware, settings, anew, keep, replan)
        if why:
            yield FunctionCommand(_fail, (plan, why), {})
            return
    host.noop(f"{len(verdicts)} verdicts")


def _settled(
    launch: HostLaunch,
    hardware: Hardware,
    settings: InterconnectSettings,
    anew: bool,
    keep: Keep,
    replan: Replan,
) -> tuple[Verdicts, HostPlan, str]:
    """Measure until the plan wants nothing more; verdicts, the plan, and why it cannot go on."""
    plan, verdicts = launch.plan, hardware.interconnect
    known = () if anew else valid(verdicts, launch.engine, launch.driver_version)
    asked: set[tuple[int, ...]] = set()
    for _ in range(MOST_ROUNDS):
        wanted = unmeasured(plan, replace(hardware, interconnect=verdicts), known, launch.engine)
        groups = [one for one in wanted if one.gpus not in asked]
        if not groups:
            break
        asked |= {group.gpus for group in groups}
        answer = _ask(groups, known, launch, settings)
        verdicts = merged(verdicts, known, answer.verdicts)
        known = (*known, *answer.verdicts)
        _tell(answer, verdicts, anew)
        if not answer.verdicts:
            break
        _keep(keep, verdicts)
        try:
            plan = replan(verdicts)
        except ValueError as error:
            return verdicts, plan, str(error)
    return verdicts, plan, _adopt(launch, plan) if asked else ""


def _keep(keep: Keep, verdicts: Verdicts) -> None:
    # An exception here would end the run for every host.
    try:
        keep(verdicts)
    except (ValueError, OSError) as error:
        _warn(f"these verdicts could not be recorded: {error}")


def _adopt(launch: HostLaunch, plan: HostPlan) -> str:
    """Let the launch follow a plan in which P2P alone is another; "", or why it cannot."""
    if plan == launch.plan:
        return ""
    adopted = with_p2p_of(launch.plan, plan)
    if adopted is None:
        return "the verdicts change its plan"
    for before, now in zip(launch.plan.replicas, adopted.replicas, strict=True):
        if before.p2p != now.p2p:
            way = "with" if now.p2p else "without"
            click.echo(f"{host.print_prefix}{now.name} works {way} P2P from this run on")
    launch.plan = adopted
    _warn(
        "its plan is another now: a saved one has to be saved anew (--save), or accepted with "
        "--data accept_plan=true"
    )
    return ""


def _ask(
    groups: Sequence[Group],
    known: Sequence[LinkVerdict],
    launch: HostLaunch,
    settings: InterconnectSettings,
) -> Measured:
    seconds = limit_s(groups, settings)
    lines = host.get_fact(
        AllReduces,
        engine=launch.engine,
        user=launch.settings.user,
        seconds=seconds,
        _stdin=SecretInput(program(groups, known, launch.engine, settings, launch.devices)),
        # For a host that hangs as a whole: the command has its own limits.
        _timeout=seconds + 90,
        _ignore_errors=True,
    )
    asked = [group.gpus for group in groups]
    return parse_answer(lines or (), launch.engine, launch.driver_version, asked)


def _tell(answer: Measured, verdicts: Sequence[LinkVerdict], anew: bool) -> None:
    groups = dict.fromkeys(one.gpus for one in answer.verdicts)
    for line in told(verdicts, groups):
        click.echo(f"{host.print_prefix}{line}")
    recorded = set() if anew else {one.gpus for one in verdicts}
    # An older verdict does until the replicas stop: an engine's upgrade comes while they serve.
    busy = [",".join(map(str, gpus)) for gpus in answer.busy if gpus not in recorded]
    if busy:
        _warn(
            f"GPUs {' and '.join(busy)} were not measured, as replicas serve from them: the plan "
            "goes by what is recorded. To measure them, stop these replicas and run again"
        )
    for problem in answer.problems:
        _warn(f"not measured: {problem}; the plan goes by what is recorded")


def _warn(text: str) -> None:
    host.log_styled(text, fg="yellow", log_func=logger.warning)


def _fail(state: State, host: Host, plan: HostPlan, why: str) -> bool:
    """Print the new plan; False makes pyinfra fail this host and no other."""
    text = f"{why}; nothing was started or stopped here, run again to deploy the new one:"
    host.log_styled(text, fg="red", log_func=logger.error)
    click.echo(explain_host(plan))
    return False
