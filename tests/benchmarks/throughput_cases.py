"""The rows of tests/data/throughput.jsonl as inputs of the performance estimate.

A row's replica holds tensor_parallel_size × concurrency_per_gpu requests: rows of one case have
equal concurrency per GPU. `tokens_per_s_per_gpu` counts output tokens and equals
concurrency_per_gpu × output_tokens / (ttft + output_tokens × tpot), but for 23 rows with more
requests than output tokens, where the peer admits one prompt a step and so less run at once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from roles.engine.calibration import CALIBRATION, Calibration
from roles.hardware import Gpu
from roles.models import Model, catalog_config, find, parse_config
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


# Forms of one model, by the names that rows and catalog have for them.
BASES = {
    "meta-llama/Meta-Llama-3.1-8B": "Llama-3.1-8B",
    "meta-llama/Meta-Llama-3.1-70B": "Llama-3.1-70B",
    "meta-llama/Llama-3.1-70B": "Llama-3.1-70B",
    "nvidia/Llama-3.1-70B-Instruct-FP8": "Llama-3.1-70B",
    "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4": "Llama-3.1-70B",
    "nvidia/Kimi-K2.6-NVFP4": "Kimi-K2.5",
    "moonshotai/Kimi-K2.5": "Kimi-K2.5",
    "deepseek-ai/DeepSeek-R1": "DeepSeek-R1",
    "nvidia/DeepSeek-V3.1-NVFP4": "DeepSeek-R1",
    "Qwen/Qwen3-8B-FP8": "Qwen3-8B",
    "Qwen/Qwen3.5-35B-A3B-FP8": "Qwen3.6-35B-A3B",
    "Qwen/Qwen3-Coder-30B-A3B-Instruct": "Qwen3-30B-A3B",
    "nvidia/Qwen3.5-397B-A17B-NVFP4": "Qwen3.5-397B-A17B",
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
    concurrency_per_gpu: float
    tokens_per_s_per_gpu: float
    ttft_ms: float
    tpot_ms: float
    quantization: str | None = None
    pipeline_parallel_size: int = 1
    batch_limit: int | None = None
    setup: str = ""

    @property
    def case(self) -> tuple[str | float | None, ...]:
        """What the rows of the tensor parallel sizes to choose among have in common."""
        size = (self.input_tokens, self.output_tokens, self.concurrency_per_gpu)
        stages = self.pipeline_parallel_size
        return (self.setup, self.gpu, self.model, self.quantization, stages, *size)

    @property
    def concurrency(self) -> float:
        """The requests of one replica."""
        return self.concurrency_per_gpu * self.gpus

    @property
    def gpus(self) -> int:
        """The GPUs of one replica."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def measured(self) -> bool:
        """Whether it was measured end to end; else a peer composed it."""
        return self.setup != ""

    @property
    def base(self) -> str:
        """The model without its quantisation: what is left out of a fit together."""
        return BASES.get(self.model, self.model.split("/")[-1])

    @property
    def kind(self) -> str:
        """The kind of card, whatever its edition: what is left out of a fit together."""
        return " ".join(self.gpu.split()[:4]) if "RTX PRO" in self.gpu else self.gpu


def rows() -> list[Row]:
    """The rows with `fits: true`; the others have no figures."""
    lines = (DATA / "throughput.jsonl").read_text().splitlines()
    read = [json.loads(line) for line in lines]
    names = Row.__dataclass_fields__.keys()
    return [Row(**{name: row[name] for name in names & row.keys()}) for row in read if row["fits"]]


@cache
def model_of(name: str, quantization: str | None) -> Model:
    """A model of the catalog, quantised if that is stated."""
    if quantization is None:
        return find(name)
    config = {k: v for k, v in catalog_config(name).items() if k != "quantization_config"}
    return parse_config(config, model_id=f"{name} {quantization}", quantization=quantization)


@cache
def costs_of(model: str, quantization: str | None = None) -> ModelCosts:
    """The costs of a model, by the name that the rows have for it."""
    return model_costs(model_of(NAMES.get(model, model), quantization))


@cache
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
            costs_of(row.model, row.quantization),
            rates_of(row.gpu),
            ReplicaLinks(row.links),
            row.tensor_parallel_size,
            row.pipeline_parallel_size,
            Workload(row.input_tokens, row.output_tokens, row.concurrency, row.batch_limit),
            calibration,
        )
        for row in data
    ]
