"""The load of a service, and the performance estimate of one replica under its part of it."""

from dataclasses import dataclass
from typing import Literal

Bound = Literal["weights", "kv", "compute", "links"]
# What a service does with a text: go on with it, turn it into a vector, or rank others by it.
Task = Literal["generate", "embed", "rerank"]


@dataclass(frozen=True)
class Load:
    """The expected load of a fleet or a host: concurrent requests, all of one size."""

    concurrency: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Estimate:
    """An estimate, not a measurement, of one replica under its load.

    `tokens_per_s` counts output tokens. `tpot_ms` is the mean time between a request's output
    tokens, including pauses for other prompts. `bound_by` is what takes most of that time. Eight of
    ten measurements of such replicas lie between `tokens_per_s_low` and `tokens_per_s_high`.
    """

    tokens_per_s: float
    tokens_per_s_per_gpu: float
    requests_per_s: float
    ttft_ms: float
    tpot_ms: float
    bound_by: Bound
    tokens_per_s_low: float
    tokens_per_s_high: float

    @property
    def request_ms(self) -> float:
        """The time of one whole request, from its arrival to its last token."""
        return self.ttft_ms + self.tpot_ms * self.tokens_per_s / self.requests_per_s
