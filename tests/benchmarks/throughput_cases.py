"""The rows of tests/data/throughput.jsonl as inputs of the performance estimate.

A row's replica holds tensor_parallel_size × concurrency_per_gpu requests: rows of one case have
equal concurrency per GPU. `tokens_per_s_per_gpu` counts output tokens and equals
concurrency_per_gpu × output_tokens / (ttft + output_tokens × tpot), but for 23 rows with more
requests than output tokens, where the peer admits one prompt a step and so less run at once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from roles.engine.calibration import CALIBRATION, Calibration
from roles.hardware import Gpu
from roles.models import find
from roles.plan import Estimate
from roles.topology.costs import GpuRates, LinkKind, ModelCosts, ReplicaLinks, Workload
from roles.topology.performance import estimate
from roles.topology.rates import gpu_rates, model_costs

DATA = Path(__file__).parent.parent / "data"

# The catalog's names of the rows' models.
NAMES = {
    "meta-llama/Meta-Llama-3.1-8B": "meta-llama/Llama-3.1-8B",
    "meta-llama/Meta-Llama-3.1-70B": "meta-llama/Llama-3.1-70B",
}


@dataclass(frozen=True)
class Row:
    """One row that fits."""

    gpu: str
    links: LinkKind
    model: str
    tensor_parallel_size: int
    input_tokens: int
    output_tokens: int
    concurrency_per_gpu: int
    tokens_per_s_per_gpu: float
    ttft_ms: float
    tpot_ms: float

    @property
    def case(self) -> tuple[str, str, int, int, int]:
        """What the rows of the tensor parallel sizes to choose among have in common."""
        size = (self.input_tokens, self.output_tokens, self.concurrency_per_gpu)
        return (self.gpu, self.model, *size)

    @property
    def concurrency(self) -> int:
        return self.concurrency_per_gpu * self.tensor_parallel_size


def rows() -> list[Row]:
    """The rows with `fits: true`; the others have no figures."""
    lines = (DATA / "throughput.jsonl").read_text().splitlines()
    read = [json.loads(line) for line in lines]
    names = Row.__dataclass_fields__
    return [Row(**{name: row[name] for name in names}) for row in read if row["fits"]]


def costs_of(model: str) -> ModelCosts:
    """The costs of a model, by the name that the rows have for it."""
    return model_costs(find(NAMES.get(model, model)))


def rates_of(gpu: str) -> GpuRates:
    """The rates of a card in its widest slot; ValueError where the table of cards has none."""
    rates = gpu_rates(Gpu(0, gpu, 0))
    if rates is None:
        raise ValueError(f"{gpu} has no rates in the table of cards; add them")
    return rates


def estimates(data: Sequence[Row], calibration: Calibration = CALIBRATION) -> list[Estimate]:
    """An estimate for each row."""
    return [
        estimate(
            costs_of(row.model),
            rates_of(row.gpu),
            ReplicaLinks(row.links),
            row.tensor_parallel_size,
            1,
            Workload(row.input_tokens, row.output_tokens, row.concurrency),
            calibration,
        )
        for row in data
    ]
