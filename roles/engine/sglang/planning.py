"""The planning of SGLang."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from roles.engine.calibration import Calibration, Spread, Spreads
from roles.engine.equal_cards import EqualCards
from roles.engine.kernels import too_old
from roles.engine.params import (
    Argument,
    Changes,
    EngineParams,
    GpuMemory,
    Speculation,
    gpu_memory,
)
from roles.engine.refusal import Refusal
from roles.engine.sglang.arguments import ADAPTER_OPTIONS, KV_DTYPES, check_arguments, unknown_by
from roles.engine.sglang.kernels import ENGINE_CAPABILITY, kernel_problem
from roles.engine.sglang.memory import REQUESTS, memory_sum, static_fraction, step
from roles.engine.speculation import check_options, check_speculation
from roles.engine.tasks import check_task
from roles.hardware import Gpu
from roles.models import Model, Recurrent
from roles.plan import MemorySum, Shape, Task

# Tokens and requests of a step if SGLang's defaults leave no memory for KV cache.
FEWER_TOKENS, FEWER_SEQS = 2048, 64
# FP8 in hardware (Ada, Hopper and newer).
FP8_CACHE_CAPABILITY = 8.9
_CHANGE_NAMES = {
    "max_num_seqs": "max-running-requests",
    "max_num_batched_tokens": "chunked-prefill-size",
    "enforce_eager": "disable-cuda-graph",
}
# Fitted to SGLang's measured rows by tests/benchmarks/throughput_regret.py; for all else it has the
# constants of the other rows.
CALIBRATION = Calibration(
    expert_read_efficiency=0.678,
    moe_layer_overhead_us=30.2,
    # None of its rows has weights that are converted: wider, as vLLM's are.
    spreads=Spreads(Spread(0.82, 1.13), converted=Spread(0.74, 1.14), unsure=Spread(0.47, 1.5)),
)


# Its names of the methods (`--speculative-algorithm`).
_ALGORITHMS: Mapping[str, str] = {
    "ngram": "NGRAM",
    "draft_model": "STANDALONE",
    "eagle": "EAGLE",
    "eagle3": "EAGLE3",
    "mtp": "NEXTN",
}
# How a cross-encoder is started.
_ENCODER: Mapping[str, Argument] = {
    "attention-backend": "triton",
    "chunked-prefill-size": -1,
    "disable-radix-cache": True,
}


@dataclass(frozen=True)
class Sglang(EqualCards):
    """SGLang: equal cards, tensor and pipeline parallel, weights and KV cache in a fixed share of
    the memory."""

    kind: str = "sglang"
    name: str = "SGLang"
    # It serves where a service says so.
    preferred_formats: tuple[str, ...] = ()
    spans_hosts: bool = True
    spans_with_ray: bool = False
    has_recipes: bool = False
    adapter_options: Sequence[str] = ADAPTER_OPTIONS
    calibration: Calibration = CALIBRATION
    min_capability_of_any_build: float = ENGINE_CAPABILITY
    memory_parts: tuple[tuple[str, str], ...] = (
        ("driver_gib", "driver"),
        ("headroom_gib", "steps and CUDA graphs"),
        ("weights_gib", "weights"),
        ("workspace_gib", "workspace"),
        ("kv_cache_gib", "KV cache"),
    )

    @property
    def change_names(self) -> Mapping[str, str]:
        """SGLang's own options."""
        return _CHANGE_NAMES

    def memory(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> MemorySum:
        """The memory of a GPU of the limiting pipeline stage: all GPUs are equal."""
        return memory_sum(model, gpus[0], shape, params)

    def batch(self, gpu: GpuMemory, params: EngineParams, length: int) -> tuple[int, int]:
        """Tokens per step, and concurrent requests."""
        tokens = step(gpu.total_mib, 1, params).prefill_tokens
        return tokens, params.max_num_seqs or REQUESTS

    def utilization(
        self, model: Model, gpu: GpuMemory, shape: Shape, params: EngineParams
    ) -> float | None:
        """The share for weights and KV cache: what SGLang's reserve leaves."""
        return static_fraction(model, gpu.total_mib, shape, params)

    def tighter(self, params: EngineParams) -> tuple[Changes, ...]:
        """Fewer tokens per step, then fewer requests, and last no CUDA graphs, which slows decoding
        down most. A set share of the memory depends on none of them."""
        if params.utilization is not None or params.kv_cache_memory_bytes is not None:
            return ()
        steps: list[Changes] = []
        if params.max_num_batched_tokens is None:
            steps.append(Changes(max_num_batched_tokens=FEWER_TOKENS))
        if params.max_num_seqs is None:
            steps.append(Changes(max_num_seqs=max(FEWER_SEQS, params.min_concurrency)))
        if params.eager is None:
            steps.append(Changes(enforce_eager=True))
        return tuple(accumulate(steps, Changes.then))

    def unsupported(
        self,
        model: Model,
        params: EngineParams,
        dtype: str | None,
        gpu: Gpu,
        least: float | None = None,
    ) -> Refusal | None:
        """Why SGLang would not start on a card, and the remedy."""
        least = ENGINE_CAPABILITY if least is None else least
        old = too_old(gpu, least, self.name, "use a newer GPU, or engine vllm or llama_cpp")
        return old or self.kernel_problem(model, params, gpu_memory(gpu))

    def planned_dtype(self, model: Model, dtype: str | None, gpu: Gpu) -> str | None:
        """None: every card that it runs on has bfloat16."""
        return None

    def doubts(self, model: Model) -> tuple[str, ...]:
        """Warnings about a model of an unknown kind, and about states of a fixed size, for which
        SGLang has a pool of its own."""
        if not any(isinstance(layer.mixer, Recurrent) for layer in model.layers):
            return model.warnings
        return (
            *model.warnings,
            f"{model.name}: SGLang shares its memory between states and KV cache by a rule of its "
            "own, which the plan does not know; see max_total_num_tokens in its log",
        )

    def kernel_problem(self, model: Model, params: EngineParams, gpu: GpuMemory) -> Refusal | None:
        """What a card has no kernels for, and the nearest form that it runs."""
        return kernel_problem(model, params, gpu)

    def lower_utilization(self, gpu: GpuMemory, params: EngineParams) -> float | None:
        """None: the share is of what is free at start."""
        return None

    def smaller_cache(
        self, gpu: GpuMemory, params: EngineParams
    ) -> tuple[str, EngineParams] | None:
        """An FP8 KV cache, if the card computes in FP8."""
        if (gpu.compute_capability or 0) < FP8_CACHE_CAPABILITY or params.kv_cache_dtype != "auto":
            return None
        return "fp8_e4m3", replace(params, kv_cache_dtype="fp8_e4m3")

    def weights_problem(self, weights: str | None) -> str | None:
        """That the weights are a GGUF file."""
        if weights is None or not weights.endswith(".gguf"):
            return None
        return f"{weights!r} is a GGUF file, which SGLang does not serve here; set engine llama_cpp"

    def check_arguments(self, arguments: Mapping[str, Argument], model: Model) -> None:
        """ValueError for an invalid option, or one that another setting decides."""
        check_arguments(arguments)

    def knows(self, option: str) -> bool:
        """Whether 0.5.23 has an option of this name, or beginning."""
        return not unknown_by([option])

    def kv_cache_arguments(self, dtype: str) -> Mapping[str, Argument]:
        """`--kv-cache-dtype`."""
        if dtype not in KV_DTYPES:
            raise ValueError(f"{dtype!r} is none of SGLang's: {', '.join(KV_DTYPES)}")
        return {"kv-cache-dtype": dtype}

    def task_arguments(
        self, task: Task, model: Model, length: int, arguments: Mapping[str, Argument]
    ) -> Mapping[str, Argument]:
        """`--is-embedding`; a cross-encoder reads a text at once.

        Source: SGLang's docs (supported_models/rerank_models): rerankers that generate rank by
        the probability of a word, without that option.
        """
        check_task(task, model)
        if task == "generate" or (task == "rerank" and model.generates):
            return {}
        encoder = {} if model.generates else _ENCODER
        chosen = {name: value for name, value in encoder.items() if name not in arguments}
        return {"is-embedding": True, **chosen}

    def speculative_arguments(
        self, speculation: Speculation, model: Model, arguments: Mapping[str, Argument]
    ) -> Mapping[str, Argument]:
        """`--speculative-…`: one chain of drafted tokens, and the token that they follow."""
        check_speculation(speculation, model, same_words=True)
        options = [name for name in arguments if name.startswith("speculative-")]
        check_options(arguments, options)
        found: dict[str, Argument] = {"speculative-algorithm": _ALGORITHMS[speculation.method]}
        if speculation.weights:
            found["speculative-draft-model-path"] = speculation.weights
        if speculation.revision:
            found["speculative-draft-model-revision"] = speculation.revision
        if speculation.method == "ngram":
            return {**found, "speculative-num-draft-tokens": speculation.tokens}
        return {
            **found,
            "speculative-num-steps": speculation.tokens,
            "speculative-eagle-topk": 1,
            "speculative-num-draft-tokens": speculation.tokens + 1,
        }

    def with_arguments(
        self, params: EngineParams, arguments: Mapping[str, Argument]
    ) -> EngineParams:
        """The parameters, with the arguments that affect memory."""
        tokens = arguments.get("chunked-prefill-size")
        requests = arguments.get("max-running-requests")
        graph = arguments.get("cuda-graph-max-bs-decode")
        method, eager = arguments.get("quantization"), arguments.get("disable-cuda-graph")
        return replace(
            params,
            # -1: a step has whole prompts.
            max_num_batched_tokens=int(tokens) if tokens and int(tokens) > 0 else None,
            max_num_seqs=int(requests) if requests else None,
            eager=None if eager is None else bool(eager),
            kv_cache_dtype=KV_DTYPES[str(arguments.get("kv-cache-dtype", "auto"))],
            quantization=None if method is None else str(method),
            options=(("cuda-graph-max-bs-decode", graph),) if graph else (),
        )


SGLANG = Sglang()
