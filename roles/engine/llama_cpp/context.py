"""How llama-server is started, as far as its memory goes.

Source: llama.cpp b11434, `src/llama-context.cpp`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from roles.engine.params import Argument, EngineParams

# llama.cpp keeps whole 256s of cells for each slot.
CELLS = 256
# Bytes of a number of the KV cache: blocks of 32 with their scales.
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
BATCH, MICRO_BATCH = 2048, 512
# What a service may set of it, in the order of `Asked.options`.
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
    """Slots for requests of a length each, and what KV cache and steps are made of.

    `flash_attention` false makes all scores of a step stand in memory at once; `full_windows` keeps
    all tokens of sliding windows too.
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
        """Cells of one slot: its length in whole 256s."""
        return _round_up(self.length, CELLS)

    @property
    def context_size(self) -> int:
        """What `--ctx-size` is set to: the cells of all slots."""
        return self.slots * self.cells

    @property
    def tokens(self) -> int:
        """Tokens of one step, a whole number for each slot."""
        most = min(self.micro_batch, self.batch, self.context_size)
        return _round_up(most, self.slots)

    @property
    def outputs(self) -> int:
        """Tokens of one step whose logits are kept, at most."""
        return min(self.micro_batch, self.batch, self.context_size)

    def window_cells(self, window: int) -> int:
        """Cells of one slot in a layer with a sliding window; 0 is none."""
        if not window or self.full_windows:
            return self.cells
        max_tokens = window + min(self.micro_batch, self.batch, self.context_size)
        return _round_up(min(self.cells, max_tokens), CELLS)


def context_of(params: EngineParams, limit: int) -> Context:
    """The context for what a service asks; `limit` is the model's own length in tokens."""
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
    """The arguments that take memory."""
    return tuple((name, arguments[name]) for name in MEMORY_OPTIONS if name in arguments)


def _round_up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple
