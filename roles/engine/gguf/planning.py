"""The planning that engines on llama.cpp share: GGUF files, on one card or by layers over cards."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from roles.engine.gguf.context import (
    CACHE_BYTES,
    CELLS,
    UNQUANTISED,
    Context,
    context_of,
    memory_options,
)
from roles.engine.gguf.converted import gguf_type, shape_of
from roles.engine.gguf.memory import Part
from roles.engine.gguf.split import parts_of, tensor_split
from roles.engine.kernels import too_old
from roles.engine.params import GIB, Argument, Changes, EngineParams, GpuMemory, gpu_memory
from roles.engine.refusal import Instead, Refusal
from roles.engine.tasks import check_task
from roles.hardware import Gpu
from roles.models import Model
from roles.plan import MemorySum, Shape, Task

# Memory that llama-server leaves free on each card (--fit-target), for CUDA's context and scratch
# memory, which its own sums do not include.
LEFT_FREE_GIB = 1.0


@dataclass(frozen=True)
class GgufPlanning:
    """What is the same of every engine that runs llama.cpp: GGUF files on one card, or whole layers
    over cards of any kinds.

    `min_capability` is the least compute capability of its newest build.
    """

    kind: str
    name: str
    min_capability: float
    min_capability_of_any_build: float
    preferred_formats: tuple[str, ...] = ()
    kv_cache_dtypes: tuple[str, ...] = tuple(CACHE_BYTES)
    mixed_cards: bool = True
    fills_memory: bool = False
    spans_hosts: bool = False
    spans_with_ray: bool = False
    has_recipes: bool = False
    calibration: None = None
    memory_parts: tuple[tuple[str, str], ...] = (
        ("driver_gib", "driver"),
        ("headroom_gib", "left free"),
        ("weights_gib", "weights"),
        ("activations_gib", "compute buffers"),
        ("workspace_gib", "converted KV"),
        ("kv_cache_gib", "KV cache"),
    )

    @property
    def change_names(self) -> Mapping[str, str]:
        """None: it changes nothing."""
        return {}

    def memory(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> MemorySum:
        """The memory of the card with the least headroom."""
        return min(self.memories(model, gpus, shape, params), key=lambda one: one.headroom_gib)

    def memories(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> tuple[MemorySum, ...]:
        """The memory of each card."""
        context = context_of(params, model.context_limit_tokens)
        split = shape.tensor_split or (1.0,) * shape.gpus
        parts = parts_of(shape_of(model), context, split)
        impossible = _impossible(model, context)
        return tuple(
            _sum(gpu, part, context, params, impossible)
            for gpu, part in zip(gpus, parts, strict=True)
        )

    def shapes(self, gpus: int) -> tuple[Shape, ...]:
        """One card, or layers over two or more."""
        return tuple(Shape(1, count) for count in range(1, gpus + 1))

    def check_shape(self, model: Model, shape: Shape) -> tuple[Shape, tuple[str, ...]]:
        """The shape and its problems: each card needs a layer, or the output."""
        if shape.tensor_parallel > 1:
            return shape, ("tensors are not split, layers are",)
        layers = len(shape_of(model).every_layer)
        if shape.pipeline_parallel > layers + 1:
            return shape, (f"{layers} layers are too few for {shape.gpus} GPUs",)
        return shape, ()

    def placed(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> Shape:
        """The shape with the split over the cards; by their free memory if no split fits."""
        if shape.gpus == 1:
            return shape
        context = context_of(params, model.context_limit_tokens)
        rooms = [room_gib(gpu, params) for gpu in gpus]
        found = tensor_split(shape_of(model), context, [room * GIB for room in rooms])
        return replace(shape, tensor_split=found or tuple(max(0.1, round(r, 1)) for r in rooms))

    def batch(self, gpu: GpuMemory, params: EngineParams, length: int) -> tuple[int, int]:
        """Tokens per step, and the number of slots."""
        context = context_of(params, length)
        return context.tokens, context.slots

    def utilization(
        self, model: Model, gpu: GpuMemory, shape: Shape, params: EngineParams
    ) -> float | None:
        """None: the service's setting."""
        return None

    def tighter(self, params: EngineParams) -> tuple[Changes, ...]:
        """Nothing: the number of slots is the requested one already."""
        return ()

    def unsupported(
        self,
        model: Model,
        params: EngineParams,
        dtype: str | None,
        gpu: Gpu,
        least: float | None = None,
    ) -> Refusal | None:
        """Why the engine would not start on a card, and what to do."""
        least = self.min_capability if least is None else least
        old = too_old(gpu, least, self.name, "use a newer GPU")
        return old or self.kernel_problem(model, params, gpu_memory(gpu))

    def planned_dtype(self, model: Model, dtype: str | None, gpu: Gpu) -> str | None:
        """None: a GGUF file determines the types."""
        return None

    def doubts(self, model: Model) -> tuple[str, ...]:
        """Empty for a GGUF file, whose tensors are counted."""
        return () if model.gguf else model.warnings

    def kernel_problem(self, model: Model, params: EngineParams, gpu: GpuMemory) -> Refusal | None:
        """That the model is no GGUF file."""
        if model.gguf is not None:
            return None
        return Refusal(
            f"{self.name} loads GGUF files, and {model.name} is none",
            Instead(
                f"take {self.files_of(model)}: set services[].model to a file that `python -m "
                "roles.models read FILE.gguf` made"
            ),
        )

    def files_of(self, model: Model) -> str:
        """A GGUF file, of similar size where the model is quantised otherwise."""
        if model.gguf is not None:
            return f"the GGUF file of {model.name}"
        return f"a GGUF file ({gguf_type(model)}) of {model.variant_of or model.name}"

    def kv_cache_arguments(self, dtype: str) -> Mapping[str, Argument]:
        """The same type for keys and values, with flash attention where it is quantised."""
        if dtype not in self.kv_cache_dtypes:
            known = ", ".join(self.kv_cache_dtypes)
            raise ValueError(f"{dtype!r} is none of {self.name}'s: {known}")
        quantised = {} if dtype in UNQUANTISED else {"flash-attn": "on"}
        return {"cache-type-k": dtype, "cache-type-v": dtype, **quantised}

    def task_arguments(
        self, task: Task, model: Model, length: int, arguments: Mapping[str, Argument]
    ) -> Mapping[str, Argument]:
        """`--embeddings` or `--reranking`, with a pooling where the file says of none, and steps of
        whole requests where the model cannot go on in another step.

        Source: llama.cpp b11434 (tools/server/server-context.cpp, can_split).
        """
        check_task(task, model)
        if task == "generate":
            if "pooling" in arguments:
                raise ValueError("pooling in arguments is of embeddings; set task embed")
            return {}
        if task == "rerank":
            steps = {} if _is_causal(model) else _whole_steps(length, arguments)
            return {"reranking": True, **steps}
        pooling = str(arguments.get("pooling") or _pooling(model))
        steps = {} if pooling == "last" and _is_causal(model) else _whole_steps(length, arguments)
        return {
            "embeddings": True,
            **({} if _pooling(model, "") else {"pooling": pooling}),
            **steps,
        }

    def lower_utilization(self, gpu: GpuMemory, params: EngineParams) -> float | None:
        """None: it takes what is planned, not a fraction of the memory."""
        return None

    def with_arguments(
        self, params: EngineParams, arguments: Mapping[str, Argument]
    ) -> EngineParams:
        """The parameters, with the arguments that affect memory."""
        return replace(params, options=memory_options(arguments))

    def smaller_cache(
        self, gpu: GpuMemory, params: EngineParams
    ) -> tuple[str, EngineParams] | None:
        """A KV cache of 8 bits, unless the service sets its type."""
        options = dict(params.options)
        if {"cache-type-k", "cache-type-v"} & options.keys() or options.get("flash-attn") == "off":
            return None
        smaller = options | {"cache-type-k": "q8_0", "cache-type-v": "q8_0"}
        return "q8_0", replace(params, options=memory_options(smaller))


def _is_causal(model: Model) -> bool:
    return model.gguf is None or not model.gguf.encoder


def _pooling(model: Model, default: str = "last") -> str:
    """The pooling of a model's file; a model that generates sees all of a text at its end."""
    own = model.gguf.pooling if model.gguf else ""
    return default if own in ("", "none") else own


def _whole_steps(length: int, arguments: Mapping[str, Argument]) -> dict[str, Argument]:
    """The options by which a step has a whole request; ValueError for smaller ones."""
    cells = -(-length // CELLS) * CELLS
    for name in ("batch-size", "ubatch-size"):
        if int(arguments.get(name, cells)) < length:
            raise ValueError(
                f"{name} {arguments[name]} is less than max_model_len {length}, and the model "
                "reads a text in one step; leave it out"
            )
    sizes = {"batch-size": cells, "ubatch-size": cells}
    return {name: arguments.get(name, size) for name, size in sizes.items()}


def room_gib(gpu: GpuMemory, params: EngineParams) -> float:
    """GiB of a card that llama-server may use."""
    usable = gpu.usable_mib / 1024
    room = usable - LEFT_FREE_GIB
    other = params.other_used_gib + _beside_gib(params)
    return (min(room, usable * params.utilization) if params.utilization else room) - other


def _beside_gib(params: EngineParams) -> float:
    """GiB of LoRA adapters, which are their files, and of a draft model with a KV cache for the
    same slots. Over several cards each is at most that on one."""
    adapters = params.loras.bytes / GIB if params.loras else 0.0
    draft = params.speculation.model if params.speculation else None
    if draft is None:
        return adapters
    (part,) = parts_of(shape_of(draft), context_of(params, draft.context_limit_tokens), ())
    return adapters + part.total / GIB


def _impossible(model: Model, context: Context) -> str | None:
    if context.length > model.context_limit_tokens:
        return f"max_model_len {context.length} is more than {model.context_limit_tokens}"
    return None


def _sum(
    gpu: GpuMemory, part: Part, context: Context, params: EngineParams, impossible: str | None
) -> MemorySum:
    total, usable = gpu.total_mib / 1024, gpu.usable_mib / 1024
    taken, room = part.total / GIB, room_gib(gpu, params)
    beside = _beside_gib(params)
    kv = part.kv / GIB
    reason = impossible or ("" if taken <= room else _shortfall_reason(part, room))
    return MemorySum(
        total_gib=total,
        driver_gib=total - usable,
        headroom_gib=usable - taken - beside,
        weights_gib=part.weights / GIB + beside,
        sampler_gib=0.0,
        activations_gib=part.compute / GIB,
        graphs_gib=0.0,
        workspace_gib=part.converted / GIB,
        kv_cache_gib=kv,
        kv_needed_gib=kv,
        kv_tokens=context.context_size,
        promised_kv_gib=kv,
        max_concurrency=float(context.slots),
        promised_concurrency=float(context.slots),
        starts=not reason,
        reason=reason,
    )


def _shortfall_reason(part: Part, room: float) -> str:
    buffers = (part.compute + part.converted) / GIB
    return (
        f"{part.weights / GIB:.1f} GiB of weights, {part.kv / GIB:.1f} of KV cache and "
        f"{buffers:.1f} of buffers, {max(0.0, room):.1f} GiB may be taken"
    )
