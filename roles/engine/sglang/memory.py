"""The memory of a GPU when SGLang serves a model in a given shape, and whether it starts.

Sources: SGLang 0.5.23 `arg_groups/memory_hook.py` (the static fraction and the defaults by memory),
`arg_groups/cuda_graph_hook.py` (sizes of CUDA graphs), `mem_cache/kv_cache_configurator.py` (KV
cache = free memory after the weights - (1 - fraction) x free memory before; the requests).
"""

from dataclasses import dataclass, replace
from functools import cache, lru_cache

from roles.engine.params import GIB, EngineParams, GpuMemory, missing
from roles.engine.speculation import draft_problem, with_draft
from roles.models import (
    KvCapacity,
    Model,
    adapter_bytes,
    kv_tokens,
    pipeline_layers,
    shape_problems,
    stage_layers,
    weights_per_gpu,
)
from roles.plan import MemorySum, Shape

# A CUDA context, which is not free even before anything is loaded (as in logs of other engines).
CONTEXT_GIB = 0.35
# NCCL's buffers are there before free memory is first read.
COLLECTIVES_GIB = 0.3
# The promise is below the prediction by this share of the memory, and by at least half a GiB.
PROMISE_SHARE, MIN_PROMISE_MARGIN_GIB = 0.03, 0.5
# The requests that it takes at once by default, where the KV cache holds few longest ones; at most
# twice as many (`resolve_max_num_reqs`).
REQUESTS = 2048
# For pictures (`adjust_mem_fraction_for_vlm`, for an encoder of the usual size).
_VISION_SHARE = 0.95


@dataclass(frozen=True)
class Defaults:
    """Tokens of a prefill step, and the largest batch of a decode step's CUDA graph."""

    prefill_tokens: int
    decode_graph: int


def defaults(total_mib: float, tensor: int) -> Defaults:
    """SGLang's defaults for a GPU with so much memory, by tensor parallel size."""
    total_gib, wide = total_mib / 1024, tensor >= 4
    if total_gib < 20:
        return Defaults(2048, 8)
    if total_gib < 35:
        return Defaults(4096, 160 if wide else 48)
    if total_gib < 60:
        return Defaults(4096, 160 if wide else 32)
    if total_gib < 160:
        return Defaults(8192, 512 if wide else 256)
    return Defaults(16384, 512)


def step(total_mib: float, tensor: int, params: EngineParams) -> Defaults:
    """The sizes of steps under a service's parameters."""
    own = defaults(total_mib, tensor)
    options = dict(params.options)
    graph = options.get("cuda-graph-max-bs-decode")
    limited = min(own.decode_graph, params.max_num_seqs or own.decode_graph)
    return Defaults(
        params.max_num_batched_tokens or own.prefill_tokens, int(graph) if graph else limited
    )


@cache
def prefill_graphs(tokens: int) -> int:
    """How many sizes of prefill steps are captured in CUDA graphs."""
    sizes = (
        *range(4, 33, 4),
        *range(48, 257, 16),
        *range(288, 513, 32),
        *range(576, 1025, 64),
        *range(1280, 4097, 256),
        *range(4608, tokens + 1, 512),
    )
    return sum(size <= tokens for size in sizes)


def reserve_mib(model: Model, total_mib: float, shape: Shape, params: EngineParams) -> float:
    """MiB that SGLang leaves for steps and CUDA graphs by default."""
    sizes = step(total_mib, shape.tensor_parallel, params)
    reserve = 512 + 1.5 * max(sizes.prefill_tokens, 2048) + 128 * shape.gpus
    if not params.eager:
        reserve += 2 * sizes.decode_graph
        # With pipeline stages prefill steps have no graphs.
        if shape.pipeline_parallel == 1:
            reserve += 1536 if model.is_mla else 8 * prefill_graphs(sizes.prefill_tokens)
    return max(reserve, 10240) if total_mib > 60 * 1024 else reserve


def static_fraction(model: Model, total_mib: float, shape: Shape, params: EngineParams) -> float:
    """`--mem-fraction-static`: the share of a GPU for weights and KV cache; the service's own
    where it sets one."""
    if params.utilization:
        return params.utilization
    reserve = reserve_mib(model, total_mib, shape, params)
    share = round((total_mib - reserve) / total_mib, 3) if total_mib else 0.0
    return round(share * _VISION_SHARE, 3) if model.everywhere else share


@lru_cache(maxsize=8192)
def memory_sum(model: Model, gpu: GpuMemory, shape: Shape, params: EngineParams) -> MemorySum:
    """The memory of a GPU of the limiting pipeline stage; see MemorySum.

    ValueError for an unknown kv_cache_dtype.
    """
    problem = draft_problem(params.speculation, shape)
    model = with_draft(model, params.speculation)
    problem = problem or _impossible(model, shape, params)
    if shape.pipeline_parallel > len(model.layers):
        # The shape is invalid already; compute the sum without stages.
        shape = replace(shape, pipeline_parallel=1)
    total, usable = gpu.total_mib / 1024, gpu.usable_mib / 1024
    workspace = CONTEXT_GIB + (COLLECTIVES_GIB if shape.gpus > 1 else 0.0)
    free = usable - workspace - params.other_used_gib
    fraction = static_fraction(model, gpu.total_mib, shape, params)
    weights = _weights_gib(model, shape, params)
    caches = [_cache_gib(fraction * free - one, params) for one in weights]
    parts = pipeline_layers(len(model.layers), shape.pipeline_parallel)
    tightest = min(range(len(parts)), key=lambda stage: caches[stage] / parts[stage])
    capacity = _capacity(model, gpu, shape, params, caches)
    margin = 0.0 if _is_given(params) else max(MIN_PROMISE_MARGIN_GIB, PROMISE_SHARE * usable)
    promised = _capacity(model, gpu, shape, params, [one - margin for one in caches])
    problem = problem or _no_start(max(weights), fraction * free, caches[tightest], capacity)
    kv = caches[tightest]
    return MemorySum(
        total_gib=total,
        driver_gib=total - usable,
        headroom_gib=usable - workspace - weights[tightest] - kv,
        weights_gib=weights[tightest],
        sampler_gib=0.0,
        activations_gib=0.0,
        graphs_gib=0.0,
        workspace_gib=workspace,
        kv_cache_gib=kv,
        kv_needed_gib=_gib(params.min_concurrency * capacity.blocks_per_request, capacity),
        kv_tokens=capacity.tokens,
        promised_kv_gib=max(0.0, kv - margin),
        max_concurrency=capacity.max_concurrency,
        promised_concurrency=promised.max_concurrency,
        starts=not problem,
        reason=problem or "",
    )


def _weights_gib(model: Model, shape: Shape, params: EngineParams) -> list[float]:
    """GiB of weights on a GPU of each stage."""
    return [
        weights_per_gpu(
            model,
            shape.tensor_parallel,
            shape.pipeline_parallel,
            stage,
            expert_parallel=shape.expert_parallel,
            data_parallel_size=params.data_parallel_size,
        )
        * (1 + model.margin)
        / GIB
        + _adapters_gib(model, shape, params, stage)
        for stage in range(shape.pipeline_parallel)
    ]


def _adapters_gib(model: Model, shape: Shape, params: EngineParams, stage: int) -> float:
    """GiB of the pool of LoRA adapters (`lora/mem_pool.py`), which has room for requests without
    one, too; at most, as it holds only modules that some adapter has."""
    if params.loras is None:
        return 0.0
    layers = stage_layers(model, shape.pipeline_parallel, stage)
    each = adapter_bytes(model, params.loras.rank, shape.tensor_parallel, layers)
    return (params.loras.count + 1) * each / GIB


def _is_given(params: EngineParams) -> bool:
    return bool(params.kv_cache_memory_bytes) or params.measured_kv_gib is not None


def _cache_gib(left_gib: float, params: EngineParams) -> float:
    """GiB of the KV cache: what is left, or the given or logged value."""
    if params.measured_kv_gib is not None:
        return params.measured_kv_gib
    if params.kv_cache_memory_bytes:
        return min(params.kv_cache_memory_bytes / GIB, left_gib)
    return left_gib


def _capacity(
    model: Model, gpu: GpuMemory, shape: Shape, params: EngineParams, available_gib: list[float]
) -> KvCapacity:
    """The capacity of KV caches with these sizes, one per stage."""
    return kv_tokens(
        model,
        [int(max(0.0, gib) * GIB) for gib in available_gib],
        max_model_len=params.max_model_len or model.context_limit_tokens,
        tensor_parallel_size=shape.tensor_parallel,
        pipeline_parallel_size=shape.pipeline_parallel,
        kv_cache_dtype=params.kv_cache_dtype,
        max_num_batched_tokens=step(gpu.total_mib, shape.tensor_parallel, params).prefill_tokens,
        compute_capability=gpu.compute_capability,
    )


def _gib(blocks: int, capacity: KvCapacity) -> float:
    return blocks * capacity.bytes_per_block / GIB


def _impossible(model: Model, shape: Shape, params: EngineParams) -> str | None:
    """Why SGLang would refuse before it considers memory; None if it would not."""
    problems = shape_problems(
        model,
        shape.tensor_parallel,
        shape.pipeline_parallel,
        expert_parallel=shape.expert_parallel,
        data_parallel_size=params.data_parallel_size,
    )
    if problems:
        return f"{shape} is not possible: {problems[0]}"
    length = params.max_model_len or model.context_limit_tokens
    if length > model.context_limit_tokens:
        return f"max_model_len {length} is more than the model's {model.context_limit_tokens}"
    return None


def _no_start(
    weights_gib: float, static_gib: float, cache_gib: float, capacity: KvCapacity
) -> str | None:
    """Why the memory is not enough; None if it is."""
    if weights_gib >= static_gib:
        return f"{weights_gib:.1f} GiB of weights do not fit the {static_gib:.1f} GiB for them"
    if capacity.num_blocks >= capacity.blocks_per_request or not capacity.blocks_per_request:
        return None
    request_gib = _gib(capacity.blocks_per_request, capacity)
    short = missing(request_gib, cache_gib)
    return f"{short} for the KV cache of one request, {request_gib:.2f} GiB"
