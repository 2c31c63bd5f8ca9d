"""Cards of different kinds that together hold a model which none holds alone.

vLLM wants equal cards; llama.cpp's layer split (`--split-mode layer --tensor-split A,B`) gives each
card layers by its free memory. Source: llama.cpp's documentation of llama-server.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from roles.engine.vllm.memory import GIB, Asked, gpu_memory
from roles.hardware import Gpu
from roles.models import Model, kv_tokens, weights_per_gpu

# What llama-server leaves free of each card (--fit-target), for its buffers and the context.
LEFT_FREE_GIB = 1.0


@dataclass(frozen=True)
class LayerSplit:
    """One llama.cpp server over some cards.

    `tensor_split` is each card's room in GiB: by these parts llama.cpp gives out layers.
    """

    gpus: tuple[int, ...]
    tensor_split: tuple[float, ...]
    needed_gib: float
    room_gib: float


def layer_split(model: Model, asked: Asked, gpus: Sequence[Gpu]) -> LayerSplit | None:
    """The split of a model over some cards by their free memory; None where it is too large.

    The context holds `min_concurrency` requests of `max_model_len` tokens.
    """
    length = asked.max_model_len or model.context_limit_tokens
    rooms = [max(0.0, gpu_memory(gpu).usable_mib / 1024 - LEFT_FREE_GIB) for gpu in gpus]
    capacity = kv_tokens(model, GIB, max_model_len=length, kv_cache_dtype=asked.kv_cache_dtype)
    cache = capacity.bytes_per_token * length * asked.min_concurrency / GIB
    needed = weights_per_gpu(model, 1) / GIB + cache
    if sum(rooms) < needed or min(rooms, default=0.0) <= 0:
        return None
    return LayerSplit(
        tuple(gpu.index for gpu in gpus),
        tuple(round(room, 1) for room in rooms),
        needed,
        sum(rooms),
    )


def split_words(split: LayerSplit) -> str:
    """A split in words, with the option that makes it."""
    parts = ",".join(f"{part:g}" for part in split.tensor_split)
    return (
        f"llama.cpp over GPUs {', '.join(map(str, split.gpus))} by their free memory "
        f"(--split-mode layer --tensor-split {parts}): {split.needed_gib:.1f} GiB of weights and "
        f"context, {split.room_gib:.1f} GiB of room"
    )
