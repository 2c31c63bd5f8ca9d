"""The input of every engine's memory estimate: a GPU's memory, and a service's parameters."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Literal

from roles.hardware import Gpu, find_card, usable_memory_mib
from roles.models import Model
from roles.plan import Task

GIB = 2**30
Argument = bool | int | float | str
Method = Literal["ngram", "draft_model", "eagle", "eagle3", "mtp"]


@dataclass(frozen=True)
class GpuMemory:
    """The memory of a GPU in MiB: the total that nvidia-smi prints, and what CUDA can use of it.

    `gfx` is AMD's name of an architecture, None for other cards and where it is unknown.
    """

    name: str
    total_mib: float
    usable_mib: float
    compute_capability: float | None = None
    datacenter_links: bool = False
    gfx: str | None = None


@dataclass(frozen=True)
class Loras:
    """The LoRA adapters of a service: how many, the highest rank, and the bytes of all files."""

    count: int
    rank: int
    bytes: int


@dataclass(frozen=True)
class Speculation:
    """How `tokens` are drafted for each step: by what the text has already, by another `model`
    loaded from `weights`, or by the model's own further heads."""

    method: Method
    tokens: int
    model: Model | None = None
    weights: str = ""
    revision: str | None = None


@dataclass(frozen=True)
class EngineParams:
    """A service's parameters that affect an engine's memory; None is the engine's default.

    `options` are the service's arguments that only its own engine includes in the estimate.
    `kv_cache_memory_bytes` fixes the KV cache of each GPU; `utilization` then has no effect.
    `measured_kv_gib` is a logged KV cache that replaces the prediction. `other_used_gib` is what
    other processes use on each GPU. `quantization` and `performance_mode` are the engine's options
    of these names; `offline` is a start by the engine's Python class, not as a server.
    """

    utilization: float | None = None
    max_model_len: int | None = None
    min_concurrency: int = 1
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    eager: bool | None = None
    kv_cache_dtype: str = "auto"
    engine_version: str | None = None
    data_parallel_size: int = 1
    other_used_gib: float = 0.0
    cpu_offload_gib: float = 0.0
    kv_cache_memory_bytes: int | None = None
    measured_kv_gib: float | None = None
    quantization: str | None = None
    performance_mode: str = "balanced"
    offline: bool = False
    options: tuple[tuple[str, Argument], ...] = ()
    task: Task = "generate"
    loras: Loras | None = None
    speculation: Speculation | None = None


@dataclass(frozen=True)
class Changes:
    """What the plan sets of an engine's parameters so that a model fits; None leaves the service's
    own."""

    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    gpu_memory_utilization: float | None = None
    enforce_eager: bool = False

    def words(self, names: Mapping[str, str]) -> str:
        """The changes as the engine names them; `names` are those that differ from the fields'."""
        named = {
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "gpu_memory_utilization": self.gpu_memory_utilization,
        }
        words = [
            f"{names.get(name, name)} {value}" for name, value in named.items() if value is not None
        ]
        eager = [names.get("enforce_eager", "enforce_eager")] if self.enforce_eager else []
        return " and ".join([*words, *eager])

    def then(self, other: "Changes") -> "Changes":
        """These changes and then the other's, which go first where both set something."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Changes(*(after or before for before, after in pairs))

    def applied(self, params: EngineParams) -> EngineParams:
        """The parameters with these changes."""
        if self == NO_CHANGES:
            return params
        return replace(
            params,
            max_num_seqs=self.max_num_seqs or params.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens or params.max_num_batched_tokens,
            utilization=self.gpu_memory_utilization or params.utilization,
            eager=self.enforce_eager or params.eager,
        )


NO_CHANGES = Changes()


@lru_cache(maxsize=1024)
def gpu_memory(gpu: Gpu) -> GpuMemory:
    """The memory of a GPU: from its own report if it was observed, else from the table of cards."""
    card = find_card(gpu.name, gpu.memory_mib)
    capability = gpu.compute_capability or (card.compute_capability if card else None)
    usable = usable_memory_mib(gpu.memory_mib, card)
    links = bool(card and card.nvlink_gb_s and not card.nvlink_optional)
    gfx = card.gfx if card else None
    return GpuMemory(gpu.name, gpu.memory_mib, usable, capability, links, gfx)


def missing(needed_gib: float, available_gib: float) -> str:
    """How much memory is missing, in words; what is negative is missing, too."""
    short_gib = needed_gib - available_gib
    return (
        f"{short_gib:.1f} GiB are missing" if short_gib >= 0.1 else "less than 0.1 GiB is missing"
    )
