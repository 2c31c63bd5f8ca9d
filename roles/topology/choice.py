"""The choice among candidates by their estimates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from roles.plan import Estimate

# Estimates that differ by less than this count as equal.
TIE = 0.03

ObjectiveKind = Literal["throughput", "latency"]


class Option(Protocol):
    """A number of equal replicas, with the estimate of each."""

    @property
    def replicas(self) -> int: ...

    @property
    def estimate(self) -> Estimate: ...


@dataclass(frozen=True)
class Objective:
    """The objective: `throughput` of all replicas, or `latency` of a whole request.

    Limits take precedence: candidates within them are preferred; if there are none, the candidate
    that exceeds them least is chosen.
    """

    kind: ObjectiveKind = "throughput"
    ttft_limit_ms: float | None = None
    itl_limit_ms: float | None = None

    def excess(self, estimate: Estimate) -> float:
        """The largest factor by which the estimate exceeds a limit; 1 if it exceeds none."""
        ttft = estimate.ttft_ms / self.ttft_limit_ms if self.ttft_limit_ms else 0.0
        itl = estimate.tpot_ms / self.itl_limit_ms if self.itl_limit_ms else 0.0
        return max(1.0, ttft, itl)

    def merit(self, option: Option) -> float:
        """The value to maximise: output tokens/s of all replicas, or 1 / ms of a request."""
        if self.kind == "latency":
            return 1 / option.estimate.request_ms
        return option.replicas * option.estimate.tokens_per_s


# Few measurements have pipelines, so the range of their estimates is not known: one replaces tensor
# parallel only where its estimate is better by this factor.
PIPELINE_LEAD = 1.25


def leads(one: Option, other: Option, objective: Objective) -> bool:
    """Whether a pipeline is estimated to be so much better that it replaces tensor parallel."""
    excess, others = objective.excess(one.estimate), objective.excess(other.estimate)
    if others > excess * PIPELINE_LEAD:
        return True
    return excess <= others and objective.merit(one) > objective.merit(other) * PIPELINE_LEAD


def best(options: Sequence[Option], objective: Objective) -> int:
    """The index of the best option under the same total load.

    Within TIE of the best the option with most replicas wins, because a fault then costs less;
    among these the better estimate wins. ValueError without options.
    """
    if not options:
        raise ValueError("no shape to choose from: name at least one that fits")
    least = min(objective.excess(option.estimate) for option in options)
    allowed = [
        index
        for index, option in enumerate(options)
        if objective.excess(option.estimate) <= least * (1 + TIE if least > 1 else 1)
    ]
    top = max(objective.merit(options[index]) for index in allowed)
    tied = [index for index in allowed if objective.merit(options[index]) >= top * (1 - TIE)]
    return max(tied, key=lambda index: (options[index].replicas, objective.merit(options[index])))
