"""`predict`: predicts what vLLM logs about its memory at start, one JSON object in, one out."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import BaseModel, Field

from roles.engine.params import EngineParams
from roles.models import Count, forms
from roles.plan import MemorySum, Shape
from roles.topology.cases import GpuSettings, ModelCase, Parallel, Short, answered, model_of
from roles.topology.named_gpus import named_gpu
from roles.topology.remedies import FitCase, remedies

UsedGib = Annotated[float, Field(strict=True, ge=0, lt=2**20, allow_inf_nan=False)]

EngineVersion = Annotated[str, Field(pattern=r"^[ -~]{1,80}$")]


class CaseSettings(ModelCase):
    """One start of vLLM; null is vLLM's own default."""

    kv_cache_dtype: Short | None = None
    gpu: GpuSettings
    tensor_parallel_size: Parallel | None = None
    pipeline_parallel_size: Parallel | None = None
    max_model_len: Count | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None
    enforce_eager: bool | None = None
    offline: bool | None = Field(
        default=None, description="started by the Python class LLM, not by `vllm serve`"
    )
    engine_version: EngineVersion | None = Field(
        default=None, description="vLLM's, the newest if null"
    )
    data_parallel_size: Parallel | None = None
    enable_expert_parallel: bool | None = None
    other_used_gib: UsedGib | None = Field(default=None, description="held by other processes")
    cpu_offload_gib: UsedGib | None = None
    available_kv_gib: Annotated[float, Field(gt=-(2**20), lt=2**20)] | None = Field(
        default=None, description="known KV cache memory, instead of the prediction"
    )


class Answer(BaseModel):
    """What vLLM will log; memory in GiB on each GPU."""

    id: str | int | None
    weights_gib: float
    available_kv_gib: float
    kv_cache_tokens: int
    max_concurrency: float | None = Field(description="null where requests keep no KV cache")
    fits: bool = Field(description="whether vLLM starts")
    reason: str = Field(description="why not, and what would make it fit; empty where it does")


def schema() -> dict[str, Any]:
    """The JSON schemas of an input line and of an output line."""
    return {"input": CaseSettings.model_json_schema(), "output": Answer.model_json_schema()}


def answers(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The answer to each line; {"id", "error"} for an invalid one."""
    return answered(lines, CaseSettings, lambda case: predict(case).model_dump())


def predict(case: CaseSettings) -> Answer:
    """The answer to one case; ValueError names the field that is wrong."""
    start = _start(case)
    memory = _sum(start)
    unsupported = start.engine.kernel_problem(start.model, start.params, start.gpu)
    reason = str(unsupported) if unsupported else memory.reason
    if not memory.starts and not unsupported:
        plain = start.model.quantization is None
        found = remedies(start, forms(start.model.id) if plain else ())
        reason += "; fits with: " + ", or ".join(map(str, found)) if found else ""
    finite = memory.max_concurrency < float("inf")
    return Answer(
        id=case.id,
        weights_gib=round(memory.weights_gib, 4),
        available_kv_gib=round(memory.kv_cache_gib, 4),
        kv_cache_tokens=memory.kv_tokens,
        max_concurrency=round(memory.max_concurrency, 4) if finite else None,
        fits=memory.starts and not unsupported,
        reason=reason,
    )


def memory_of(case: CaseSettings) -> MemorySum:
    """The memory sum of one case; ValueError names the field that is wrong."""
    return _sum(_start(case))


def _sum(start: FitCase) -> MemorySum:
    try:
        return start.memory()
    except ValueError as error:
        raise ValueError(f"kv_cache_dtype: {error}") from error


def _start(case: CaseSettings) -> FitCase:
    return FitCase(
        model_of(case, case.max_model_len),
        named_gpu(case.gpu.name, case.gpu.memory_gib),
        Shape(
            case.tensor_parallel_size or 1,
            case.pipeline_parallel_size or 1,
            bool(case.enable_expert_parallel),
        ),
        _asked(case),
    )


def _asked(case: CaseSettings) -> EngineParams:
    return EngineParams(
        utilization=case.gpu_memory_utilization,
        max_model_len=case.max_model_len,
        max_num_seqs=case.max_num_seqs,
        max_num_batched_tokens=case.max_num_batched_tokens,
        eager=bool(case.enforce_eager),
        offline=bool(case.offline),
        kv_cache_dtype=case.kv_cache_dtype or "auto",
        engine_version=case.engine_version,
        data_parallel_size=case.data_parallel_size or 1,
        other_used_gib=case.other_used_gib or 0.0,
        cpu_offload_gib=case.cpu_offload_gib or 0.0,
        measured_kv_gib=case.available_kv_gib,
    )
