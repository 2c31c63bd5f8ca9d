"""Checks made of verdicts: one for each group of GPUs that is planned or was measured. Pure."""

from collections.abc import Sequence

from roles.checks import Check, Outcome
from roles.hardware import LinkVerdict
from roles.interconnect.verdicts import Measurement, evidence, group_name, wanted_groups
from roles.plan import HostPlan

NAME = "interconnect"


def interconnect_checks(
    plan: HostPlan, verdicts: Sequence[LinkVerdict], answers: Sequence[Measurement]
) -> list[Check]:
    """A check for each group of GPUs that `plan` needs, and for others in `answers`.

    `verdicts` are all valid verdicts. A planned group fails if it works neither with P2P nor
    without. There is a warning if one of the two does not work, or if an unplanned group fails.
    """
    planned = wanted_groups(plan)
    measured = [one.gpus for answer in answers for one in answer.verdicts]
    checks = []
    for gpus in dict.fromkeys((*planned, *measured)):
        own = [one for one in verdicts if one.gpus == gpus]
        if own:
            outcome, seen = _outcome(own, gpus in planned), evidence(own)
        else:
            outcome, seen = "skipped", f"not measured{_why_not(gpus, answers)}"
        checks.append(Check(NAME, group_name(gpus), outcome, seen))
    return checks


def _outcome(own: Sequence[LinkVerdict], planned: bool) -> Outcome:
    if all(one.works for one in own):
        return "pass"
    return "fail" if planned and not any(one.works for one in own) else "warn"


def _why_not(gpus: tuple[int, ...], answers: Sequence[Measurement]) -> str:
    if any(gpus in answer.busy for answer in answers):
        return ": replicas serve from them"
    problems = [problem for answer in answers for problem in answer.problems]
    return f": {'; '.join(problems)}" if problems else ""
