"""The memory of a GPU when vLLM serves a model in a given shape, and whether vLLM starts.

Source: vLLM's memory profile (`v1/worker/gpu_worker.py`): the budget is utilization x the memory
that CUDA can use; KV cache = budget - weights - a step's memory - CUDA graphs - memory that torch
did not allocate.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from roles.engine.adapters import next_rank
from roles.engine.params import GIB, EngineParams, GpuMemory, gpu_memory, missing
from roles.engine.speculation import draft_problem, with_draft
from roles.engine.vllm.engine_versions import (
    LIMITED_BY_REQUESTS,
    Rules,
    batch_defaults,
    engine_memory_gib,
    mxfp4_padding,
    parse_version,
    rules,
)
from roles.engine.vllm.transients import (
    Step,
    forward_bytes,
    graph_gib,
    picture_bytes,
    sampler_bytes,
)
from roles.hardware import Gpu
from roles.models import (
    Attention,
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

# A CUDA context, which is not free even before anything is loaded (logs: 0.33 to 0.6 GiB).
CONTEXT_GIB = 0.35
# The promise is below the prediction by this share of the memory, and by at least half a GiB.
PROMISE_SHARE, MIN_PROMISE_MARGIN_GIB = 0.03, 0.5


def batch(gpu: GpuMemory, params: EngineParams, model_len: int) -> tuple[int, int]:
    """Tokens per step and concurrent requests; vLLM limits its default of requests to the
    tokens."""
    version = parse_version(params.engine_version)
    tokens, requests = batch_defaults(
        gpu.name, gpu.total_mib, version, model_len, offline=params.offline
    )
    factor = 2 if params.performance_mode == "throughput" else 1
    tokens, requests = factor * tokens, params.max_num_seqs or factor * requests
    if version >= LIMITED_BY_REQUESTS:
        tokens = min(tokens, requests * model_len)
    tokens = params.max_num_batched_tokens or tokens
    return tokens, params.max_num_seqs or min(requests, tokens)


@dataclass(frozen=True)
class _Engine:
    """The input of a memory sum: model, GPU, shape, parameters and the version's rules."""

    model: Model
    gpu: GpuMemory
    shape: Shape
    params: EngineParams
    version_rules: Rules
    step: Step
    length: int

    @property
    def budget_gib(self) -> float:
        """GiB of the GPU that the engine may use."""
        return (
            self.gpu.usable_mib / 1024 * (self.params.utilization or self.version_rules.utilization)
        )

    @property
    def free_gib(self) -> float:
        """GiB that are free on the GPU at start."""
        return self.gpu.usable_mib / 1024 - self.params.other_used_gib - CONTEXT_GIB


@dataclass(frozen=True)
class _Stage:
    """GiB on a GPU of one pipeline stage; `kv_cache` is the rest of the budget."""

    weights: float
    sampler: float
    activations: float
    graphs: float
    workspace: float
    kv_cache: float
    layers: int

    @property
    def taken(self) -> float:
        """Everything but the KV cache."""
        return self.weights + self.sampler + self.activations + self.graphs + self.workspace


# Hosts of the same cards differ in their loads alone, which no memory depends on.
@lru_cache(maxsize=8192)
def memory_sum(model: Model, gpu: Gpu | GpuMemory, shape: Shape, params: EngineParams) -> MemorySum:
    """The memory of a GPU of the limiting pipeline stage; see MemorySum.

    ValueError for an unknown kv_cache_dtype.
    """
    facts = gpu_memory(gpu) if isinstance(gpu, Gpu) else gpu
    if model.is_mla and not rules(parse_version(params.engine_version)).latent_cache:
        model = _without_latents(model)
    problem = draft_problem(params.speculation, shape)
    model = with_draft(model, params.speculation)
    engine = _engine(model, facts, shape, params)
    problem = problem or _impossible(engine)
    if shape.pipeline_parallel > len(model.layers):
        # The shape is invalid already; compute the sum without stages.
        engine = _engine(model, facts, replace(shape, pipeline_parallel=1), params)
    stages = _stages(engine)
    available = [stage.kv_cache for stage in stages]
    capacity = _capacity(engine, available)
    tightest = min(stages, key=lambda stage: stage.kv_cache / stage.layers)
    margin = _promise_margin(engine)
    promised = _capacity(engine, [gib - margin for gib in available])
    problem = (
        problem or _no_start(engine, stages, tightest, capacity) or _whole_model(engine, stages)
    )
    total, usable = facts.total_mib / 1024, facts.usable_mib / 1024
    return MemorySum(
        total_gib=total,
        driver_gib=total - usable,
        headroom_gib=usable - tightest.taken - tightest.kv_cache,
        weights_gib=tightest.weights,
        sampler_gib=tightest.sampler,
        activations_gib=tightest.activations,
        graphs_gib=tightest.graphs,
        workspace_gib=tightest.workspace,
        kv_cache_gib=tightest.kv_cache,
        kv_needed_gib=_gib(params.min_concurrency * capacity.blocks_per_request, capacity),
        kv_tokens=capacity.tokens,
        promised_kv_gib=max(0.0, tightest.kv_cache - margin),
        max_concurrency=capacity.max_concurrency,
        promised_concurrency=promised.max_concurrency,
        starts=not problem,
        reason=problem or "",
    )


@lru_cache(maxsize=64)
def _without_latents(model: Model) -> Model:
    """The model as vLLM ran MLA before 0.7: keys and values of every head, padded to 256
    numbers."""
    layers = tuple(
        replace(
            layer,
            mixer=replace(
                layer.mixer,
                kind="full",
                kv_heads=layer.mixer.heads,
                head_size=256,
                value_head_size=256,
            ),
        )
        if isinstance(layer.mixer, Attention)
        else layer
        for layer in model.layers
    )
    return replace(model, layers=layers)


def _engine(model: Model, gpu: GpuMemory, shape: Shape, params: EngineParams) -> _Engine:
    length = params.max_model_len or model.context_limit_tokens
    tokens, requests = batch(gpu, params, length)
    step = Step(
        tokens=tokens,
        requests=requests,
        tensor=shape.tensor_parallel,
        stages=shape.pipeline_parallel,
        data_parallel=params.data_parallel_size,
        expert_parallel=shape.expert_parallel,
        capability=gpu.compute_capability,
    )
    return _Engine(
        model, gpu, shape, params, rules(parse_version(params.engine_version)), step, length
    )


def _stages(engine: _Engine) -> list[_Stage]:
    taken = _taken(
        engine.model, engine.gpu.datacenter_links, engine.shape, engine.params, engine.step
    )
    return [replace(stage, kv_cache=_left_gib(engine, stage)) for stage in taken]


# What stages take depends on a card's kind alone, and hosts differ in their GPUs' memory.
@lru_cache(maxsize=4096)
def _taken(
    model: Model, datacenter_links: bool, shape: Shape, params: EngineParams, step: Step
) -> tuple[_Stage, ...]:
    """The stages without KV cache."""
    parts = pipeline_layers(len(model.layers), shape.pipeline_parallel)
    return tuple(
        _stage(model, datacenter_links, shape, params, step, number, layers)
        for number, layers in enumerate(parts)
    )


def _stage(
    model: Model,
    datacenter_links: bool,
    shape: Shape,
    params: EngineParams,
    step: Step,
    number: int,
    layers: int,
) -> _Stage:
    version_rules = rules(parse_version(params.engine_version))
    is_last = number == shape.pipeline_parallel - 1
    transient = forward_bytes(model, step) + picture_bytes(model, step)
    # What pools has no sampler.
    samples = is_last and params.task == "generate"
    if samples:
        transient = max(transient, sampler_bytes(model, step, version_rules))
    logits = step.requests * model.padded_vocabulary_size if samples else 0
    counted = version_rules.subtracts_graphs and not params.eager
    # Steps with adapters have graphs of their own (`cudagraph_specialize_lora`).
    kinds = 2 if params.loras else 1
    return _Stage(
        weights=_weights_gib(model, shape, params, step, number),
        sampler=logits * version_rules.sampler_kept_bytes / GIB,
        activations=transient / GIB,
        graphs=kinds * graph_gib(model, step, layers) if counted else 0.0,
        workspace=engine_memory_gib(version_rules.version, step.tensor, datacenter_links),
        kv_cache=0.0,
        layers=layers,
    )


def _weights_gib(
    model: Model, shape: Shape, params: EngineParams, step: Step, number: int
) -> float:
    version = rules(parse_version(params.engine_version)).version
    loaded = weights_per_gpu(
        model,
        shape.tensor_parallel,
        shape.pipeline_parallel,
        number,
        expert_parallel=shape.expert_parallel,
        data_parallel_size=params.data_parallel_size,
        mxfp4_padding=mxfp4_padding(version, step.capability),
    )
    weights = loaded * (1 + model.margin) / GIB + _adapters_gib(model, shape, params, number)
    if not params.cpu_offload_gib:
        return weights
    return max(min(weights, _never_offloaded_gib(model, shape)), weights - params.cpu_offload_gib)


def _adapters_gib(model: Model, shape: Shape, params: EngineParams, number: int) -> float:
    """GiB of the room for LoRA adapters, which is there from the start: each as if it had the
    highest rank, on every matrix."""
    if params.loras is None:
        return 0.0
    layers = stage_layers(model, shape.pipeline_parallel, number)
    each = adapter_bytes(model, next_rank(params.loras.rank), shape.tensor_parallel, layers)
    return params.loras.count * each / GIB


def _never_offloaded_gib(model: Model, shape: Shape) -> float:
    """GiB of the embedding and the head: only layers are offloaded to the CPU."""
    tables = 1 if model.tied_embeddings or shape.pipeline_parallel > 1 else 2
    numbers = tables * model.padded_vocabulary_size * model.hidden_size
    return numbers * model.dtype_bytes / shape.tensor_parallel / GIB


def _left_gib(engine: _Engine, stage: _Stage) -> float:
    """GiB for the KV cache: the rest of the budget, or the given or logged value."""
    params = engine.params
    if params.measured_kv_gib is not None:
        return params.measured_kv_gib
    if params.kv_cache_memory_bytes:
        return params.kv_cache_memory_bytes / GIB
    foreign = params.other_used_gib if engine.version_rules.counts_all_memory else 0.0
    return engine.budget_gib - foreign - stage.taken


def _capacity(engine: _Engine, available_gib: list[float]) -> KvCapacity:
    """The capacity of KV caches with these sizes, one per stage."""
    return kv_tokens(
        engine.model,
        [int(max(0.0, gib) * GIB) for gib in available_gib],
        max_model_len=engine.length,
        tensor_parallel_size=engine.shape.tensor_parallel,
        pipeline_parallel_size=engine.shape.pipeline_parallel,
        kv_cache_dtype=engine.params.kv_cache_dtype,
        max_num_batched_tokens=engine.step.tokens,
        compute_capability=engine.gpu.compute_capability,
        engine_version=engine.version_rules.version,
    )


def _gib(blocks: int, capacity: KvCapacity) -> float:
    return blocks * capacity.bytes_per_block / GIB


def _impossible(engine: _Engine) -> str | None:
    """Why vLLM would refuse before it considers memory; None if it would not."""
    shape, limit = engine.shape, engine.model.context_limit_tokens
    problems = shape_problems(
        engine.model,
        shape.tensor_parallel,
        shape.pipeline_parallel,
        expert_parallel=shape.expert_parallel,
        data_parallel_size=engine.params.data_parallel_size,
    )
    if problems:
        return f"{shape} is not possible: {problems[0]}"
    if engine.length > limit:
        return f"max_model_len {engine.length} is more than the model's {limit}"
    return None


def _no_start(
    engine: _Engine, stages: list[_Stage], tightest: _Stage, capacity: KvCapacity
) -> str | None:
    """Why the memory is not enough for a start, in the order of vLLM's checks; None if it is."""
    params, budget, free = engine.params, engine.budget_gib, engine.free_gib
    if params.measured_kv_gib is not None:
        return _too_little_kv(engine, tightest, capacity)
    if (
        engine.version_rules.checks_free_memory
        and free < budget
        and not params.kv_cache_memory_bytes
    ):
        return f"{free:.1f} GiB are free at start, the budget is {budget:.1f} GiB"
    weights = max(stage.weights for stage in stages)
    if weights > free:
        return f"{weights:.1f} GiB of weights do not fit {free:.1f} GiB"
    peak = max(stage.weights + stage.activations for stage in stages)
    if peak > free:
        return f"weights and one step take {peak:.1f} GiB, {free:.1f} GiB are free"
    whole = tightest.taken + tightest.kv_cache
    if params.kv_cache_memory_bytes and whole > free:
        return f"with the requested KV cache {whole:.1f} GiB are taken, {free:.1f} GiB are free"
    return _too_little_kv(engine, tightest, capacity)


def _too_little_kv(engine: _Engine, tightest: _Stage, capacity: KvCapacity) -> str | None:
    needed = capacity.blocks_per_request + engine.version_rules.spare_block
    # An encoder has no KV cache, so it needs no block.
    if capacity.num_blocks >= needed or not capacity.blocks_per_request:
        return None
    request_gib = _gib(needed, capacity)
    short = missing(request_gib, tightest.kv_cache)
    return f"{short} for the KV cache of one request, {request_gib:.2f} GiB"


def _whole_model(engine: _Engine, stages: list[_Stage]) -> str | None:
    """The problem of vLLM 0.11.1 to 0.15, which compared the whole model's KV cache with one
    stage."""
    if not engine.version_rules.stages_ignored or len(stages) == 1:
        return None
    alone = replace(engine, shape=replace(engine.shape, pipeline_parallel=1))
    whole = _capacity(alone, [min(stage.kv_cache for stage in stages)])
    if whole.num_blocks >= whole.blocks_per_request:
        return None
    need = _gib(whole.blocks_per_request, whole)
    return f"this version asks {need:.2f} GiB of KV cache of each stage: it counts all layers"


def _promise_margin(engine: _Engine) -> float:
    """GiB by which the promise is below the prediction; 0 if the KV cache is given."""
    if engine.params.kv_cache_memory_bytes or engine.params.measured_kv_gib is not None:
        return 0.0
    return max(MIN_PROMISE_MARGIN_GIB, PROMISE_SHARE * engine.gpu.usable_mib / 1024)
