"""The settings of llama-server that determine its memory.

Source: llama.cpp b11434, `src/llama-context.cpp`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from roles.engine.params import Argument, EngineParams

# llama.cpp rounds the cells of each slot up to a multiple of 256.
CELLS = 256
# Bytes of a KV cache element: blocks of 32 with their scales.
CACHE_BYTES: Mapping[str, float] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
UNQUANTISED = ("f32", "f16", "bf16")
BATCH, MICRO_BATCH = 2048, 512
# The arguments that affect memory, in the order of `EngineParams.options`.
MEMORY_OPTIONS = (
    "batch-size",
    "cache-type-k",
    "cache-type-v",
    "flash-attn",
    "swa-full",
    "ubatch-size",
)


@dataclass(frozen=True)
class Context:
    """Slots for requests of one length, and the types and sizes of KV cache and steps.

    Without `flash_attention` all scores of a step are in memory at once. `full_windows` keeps all
    tokens, even beyond sliding windows.
    """

    slots: int
    length: int
    key_type: str = "f16"
    value_type: str = "f16"
    batch: int = BATCH
    micro_batch: int = MICRO_BATCH
    flash_attention: bool = True
    full_windows: bool = False

    @property
    def cells(self) -> int:
        """Cells of one slot: its length, rounded up to a multiple of 256."""
        return _round_up(self.length, CELLS)

    @property
    def context_size(self) -> int:
        """The value of `--ctx-size`: the cells of all slots."""
        return self.slots * self.cells

    @property
    def tokens(self) -> int:
        """Tokens of one step, rounded up to a multiple of the slots."""
        most = min(self.micro_batch, self.batch, self.context_size)
        return _round_up(most, self.slots)

    @property
    def outputs(self) -> int:
        """The maximum number of tokens of one step whose logits are kept."""
        return min(self.micro_batch, self.batch, self.context_size)

    def window_cells(self, window: int) -> int:
        """Cells of one slot in a layer with a sliding window; 0 means no window."""
        if not window or self.full_windows:
            return self.cells
        max_tokens = window + min(self.micro_batch, self.batch, self.context_size)
        return _round_up(min(self.cells, max_tokens), CELLS)


def context_of(params: EngineParams, limit: int) -> Context:
    """The context for a service's parameters; `limit` is the model's context length in tokens."""
    options = dict(params.options)
    return Context(
        slots=params.min_concurrency,
        length=params.max_model_len or limit,
        key_type=str(options.get("cache-type-k", "f16")),
        value_type=str(options.get("cache-type-v", "f16")),
        batch=int(options.get("batch-size", BATCH)),
        micro_batch=int(options.get("ubatch-size", MICRO_BATCH)),
        flash_attention=options.get("flash-attn", "auto") != "off",
        full_windows=bool(options.get("swa-full", False)),
    )


def memory_options(arguments: Mapping[str, Argument]) -> tuple[tuple[str, Argument], ...]:
    """The arguments that affect memory."""
    return tuple((name, arguments[name]) for name in MEMORY_OPTIONS if name in arguments)


def _round_up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple
