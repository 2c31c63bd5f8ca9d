"""The planning of vLLM."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from roles.engine.calibration import CALIBRATION, Calibration
from roles.engine.equal_cards import EqualCards
from roles.engine.params import Argument, Changes, EngineParams, GpuMemory, Speculation
from roles.engine.refusal import Refusal
from roles.engine.speculation import check_options, check_speculation
from roles.engine.tasks import check_task
from roles.engine.vllm.arguments import (
    ADAPTER_OPTIONS,
    KV_ELEMENT_BYTES,
    SPECULATIVE_OPTIONS,
    check_arguments,
    unknown_by,
)
from roles.engine.vllm.engine_versions import parse_version, rules
from roles.engine.vllm.memory import CONTEXT_GIB, batch, memory_sum
from roles.engine.vllm.support import (
    ENGINE_CAPABILITY,
    MIN_CAPABILITY_OF_ANY_BUILD,
    kernel_problem,
    planned_dtype,
    plugins,
    unsupported,
)
from roles.hardware import Gpu
from roles.models import Model
from roles.plan import MemorySum, Shape, Task

# Requests and tokens per step, and the part of the memory, if vLLM's defaults leave no memory for
# KV cache.
FEWER_SEQS = 64
FEWER_TOKENS = 2048
MORE_MEMORY = 0.95
# The longest run of tokens that is looked for in the text, for method ngram.
NGRAM_WORDS = 4
# FP8 in hardware (Ada, Hopper and newer).
FP8_CACHE_CAPABILITY = 8.9


@dataclass(frozen=True)
class Vllm(EqualCards):
    """vLLM: equal cards, tensor and pipeline parallel, KV cache in all remaining memory."""

    kind: str = "vllm"
    name: str = "vLLM"
    preferred_formats: tuple[str, ...] = ("safetensors",)
    spans_hosts: bool = True
    spans_with_ray: bool = True
    has_recipes: bool = True
    adapter_options: Sequence[str] = ADAPTER_OPTIONS
    calibration: Calibration = CALIBRATION
    min_capability_of_any_build: float = MIN_CAPABILITY_OF_ANY_BUILD
    memory_parts: tuple[tuple[str, str], ...] = (
        ("driver_gib", "driver"),
        ("headroom_gib", "headroom"),
        ("weights_gib", "weights"),
        ("sampler_gib", "sampler"),
        ("activations_gib", "activations"),
        ("graphs_gib", "CUDA graphs"),
        ("workspace_gib", "workspace"),
        ("kv_cache_gib", "KV cache"),
    )

    @property
    def change_names(self) -> Mapping[str, str]:
        """None: the fields are called as its options."""
        return {}

    def memory(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> MemorySum:
        """The memory of a GPU of the limiting pipeline stage: all GPUs are equal."""
        return memory_sum(model, gpus[0], shape, params)

    def batch(self, gpu: GpuMemory, params: EngineParams, length: int) -> tuple[int, int]:
        """Tokens per step, and concurrent requests."""
        return batch(gpu, params, length)

    def utilization(
        self, model: Model, gpu: GpuMemory, shape: Shape, params: EngineParams
    ) -> float | None:
        """None: the service's setting."""
        return None

    def tighter(self, params: EngineParams) -> tuple[Changes, ...]:
        """Fewer requests per step, then fewer tokens, then more of the memory, and last no CUDA
        graphs, which slows decoding down most."""
        seqs = max(FEWER_SEQS, params.min_concurrency)
        steps: list[dict[str, Any]] = []
        if params.max_num_seqs is None:
            steps.append({"max_num_seqs": seqs})
        if params.max_num_batched_tokens is None:
            steps.append({"max_num_batched_tokens": max(FEWER_TOKENS, params.max_num_seqs or seqs)})
        if params.utilization is None and params.kv_cache_memory_bytes is None:
            steps.append({"gpu_memory_utilization": MORE_MEMORY})
        if params.eager is None:
            steps.append({"enforce_eager": True})
        return tuple(accumulate((Changes(**step) for step in steps), Changes.then))

    def unsupported(
        self,
        model: Model,
        params: EngineParams,
        dtype: str | None,
        gpu: Gpu,
        least: float | None = None,
    ) -> Refusal | None:
        """Why vLLM would not start on a card, and the remedy."""
        return unsupported(model, params, dtype, gpu, ENGINE_CAPABILITY if least is None else least)

    def planned_dtype(self, model: Model, dtype: str | None, gpu: Gpu) -> str | None:
        """`half` if the card has no bfloat16."""
        return planned_dtype(model, dtype, gpu)

    def doubts(self, model: Model) -> tuple[str, ...]:
        """Warnings about a model of an unknown kind, and of formats that need a plugin."""
        return (*model.warnings, *plugins(model))

    def kernel_problem(self, model: Model, params: EngineParams, gpu: GpuMemory) -> Refusal | None:
        """What a card has no kernels for, and the nearest form that it runs."""
        return kernel_problem(model, params, gpu)

    def lower_utilization(self, gpu: GpuMemory, params: EngineParams) -> float | None:
        """The fraction that is free at start: the whole budget must be free."""
        usable = gpu.usable_mib / 1024
        if usable <= 0:
            return None
        percent = math.floor((usable - params.other_used_gib - CONTEXT_GIB) / usable * 100)
        budget = params.utilization or rules(parse_version(params.engine_version)).utilization
        return percent / 100 if 0 < percent < budget * 100 else None

    def smaller_cache(
        self, gpu: GpuMemory, params: EngineParams
    ) -> tuple[str, EngineParams] | None:
        """An FP8 KV cache, if the card computes in FP8."""
        if (gpu.compute_capability or 0) < FP8_CACHE_CAPABILITY or params.kv_cache_dtype != "auto":
            return None
        return "fp8", replace(params, kv_cache_dtype="fp8")

    def weights_problem(self, weights: str | None) -> str | None:
        """That a name is none of the hub's; any folder is accepted, and the model's own name."""
        if weights is None or ":" not in weights:
            return None
        return f"{weights!r} is no folder and no name on the hub; write it without a colon"

    def check_arguments(self, arguments: Mapping[str, Argument], model: Model) -> None:
        """ValueError for an invalid option, one that another setting decides, or one that the
        model's files contradict."""
        check_arguments(dict(arguments), model)

    def knows(self, option: str) -> bool:
        """Whether a version whose options were read has one of this name, or beginning."""
        return not unknown_by((), [option])

    def kv_cache_arguments(self, dtype: str) -> Mapping[str, Argument]:
        """`--kv-cache-dtype`."""
        if dtype not in KV_ELEMENT_BYTES:
            raise ValueError(f"{dtype!r} is none of vLLM's: {', '.join(KV_ELEMENT_BYTES)}")
        return {"kv-cache-dtype": dtype}

    def task_arguments(
        self, task: Task, model: Model, length: int, arguments: Mapping[str, Argument]
    ) -> Mapping[str, Argument]:
        """`--runner pooling` for what is not generating; a model that generates gives embeddings
        only if it is converted.

        Source: vLLM 0.33 docs/models/pooling_models: it ranks by a classifier, or by the likeness
        of embeddings.
        """
        check_task(task, model)
        if task == "generate":
            return {}
        converted = model.generates and "convert" not in arguments
        return {"runner": "pooling", **({"convert": "embed"} if converted else {})}

    def speculative_arguments(
        self, speculation: Speculation, model: Model, arguments: Mapping[str, Argument]
    ) -> Mapping[str, Argument]:
        """`--speculative-config` (vLLM 0.33 `config/speculative.py`)."""
        check_speculation(speculation, model, same_words=True)
        check_options(arguments, SPECULATIVE_OPTIONS)
        config: dict[str, Any] = {
            "method": speculation.method,
            "num_speculative_tokens": speculation.tokens,
        }
        if speculation.method == "ngram":
            config["prompt_lookup_max"] = NGRAM_WORDS
        if speculation.weights:
            config["model"] = speculation.weights
        if speculation.revision:
            config["revision"] = speculation.revision
        return {"speculative-config": json.dumps(config)}

    def with_arguments(
        self, params: EngineParams, arguments: Mapping[str, Argument]
    ) -> EngineParams:
        """The parameters, with the arguments that affect memory."""
        tokens, requests = arguments.get("max-num-batched-tokens"), arguments.get("max-num-seqs")
        method = arguments.get("quantization", arguments.get("q"))
        eager = arguments.get("enforce-eager")
        return replace(
            params,
            max_num_batched_tokens=int(tokens) if tokens else None,
            max_num_seqs=int(requests) if requests else None,
            eager=None if eager is None else bool(eager),
            kv_cache_dtype=str(arguments.get("kv-cache-dtype", "auto")),
            performance_mode=str(arguments.get("performance-mode", "balanced")),
            quantization=None if method is None else str(method),
        )


VLLM = Vllm()
