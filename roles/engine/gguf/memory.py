"""llama-server's memory on each card and on the host: weights, KV cache and compute buffers.

Source: llama.cpp b11434: `src/llama-model.cpp` (which layer lies where), `src/llama-kv-cache*.cpp`,
`src/llama-context.cpp` graph_reserve and `ggml/src/ggml-alloc.c` (compute buffers),
`ggml/src/ggml-cuda/fattn-common.cuh`. How many rows of a step a compute buffer holds at its fullest
was counted with llama-fit-params on twelve models of ten kinds over one, two and three devices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from roles.engine.gguf.context import CACHE_BYTES, Context
from roles.models import GgufLayers, GgufShape

_FLOAT, _HALF = 4, 2
# Several devices pipeline up to this many steps (GGML_SCHED_MAX_COPIES).
COPIES = 4


@dataclass(frozen=True)
class _Rows:
    """Rows of hidden states in a compute buffer: on the first, a middle and the last device, on the
    device with the logits, and on the host."""

    first: int
    middle: int
    last: int
    logits: int
    host: int


_ONE, _SEVERAL = _Rows(4, 4, 4, 4, 4), _Rows(16, 11, 11, 10, 10)
_HOST_ALONE = _Rows(5, 5, 5, 5, 5)


@dataclass(frozen=True)
class Part:
    """Bytes on one device. `converted` is one layer's quantised KV cache in 16 bits, which CUDA's
    attention reads."""

    layers: int
    weights: int
    kv: int
    compute: int
    converted: int = 0

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.weights + self.kv + self.compute + self.converted


@lru_cache(maxsize=4096)
def device_parts(shape: GgufShape, context: Context, counts: tuple[int, ...]) -> tuple[Part, ...]:
    """The memory of each device; `counts` are its numbers of layers, where the output counts as
    one.

    ValueError if the counts do not add up to the model's layers and its output.
    """
    layers = shape.every_layer
    if sum(counts) != len(layers) + 1 or min(counts) < 0:
        raise ValueError(f"{len(layers)} layers and the output cannot lie as {counts}")
    parts, begin = [], 0
    for number, count in enumerate(counts):
        own = layers[begin : begin + count]
        begin += count
        parts.append(
            Part(
                layers=len(own),
                weights=sum(layer.weights_bytes for layer in own)
                + (output_weights(shape) if begin > len(layers) and count else 0),
                kv=kv_bytes(own, context),
                compute=_device_compute(shape, context, number, counts, begin > len(layers)),
                converted=_converted(own, context),
            )
        )
    return tuple(parts)


def host_part(shape: GgufShape, context: Context, devices: int) -> Part:
    """The host's memory: embeddings and buffers, or everything without devices."""
    if devices:
        copies, rows = _split(devices)
        compute = copies * _masks(shape, context) + rows.host * _row(shape, context)
        return Part(0, shape.embeddings_bytes, 0, compute)
    layers = shape.every_layer
    weights = shape.embeddings_bytes + shape.output_bytes + sum(x.weights_bytes for x in layers)
    compute = _compute(shape, context, 1, _HOST_ALONE.first, _HOST_ALONE.logits)
    return Part(len(layers), weights, kv_bytes(layers, context), compute)


def output_weights(shape: GgufShape) -> int:
    """Bytes of the output, on the last layer's device; tied embeddings are copied there."""
    return shape.output_bytes + (shape.embeddings_bytes if shape.tied else 0)


def kv_bytes(layers: Iterable[GgufLayers], context: Context) -> int:
    """Bytes of the keys, values and recurrent states of all slots in some layers."""
    return sum(_layer_kv(layer, context) for layer in layers)


@lru_cache(maxsize=4096)
def _layer_kv(layer: GgufLayers, context: Context) -> int:
    cells = context.slots * context.window_cells(layer.window)
    key = layer.key_length * CACHE_BYTES[context.key_type]
    value = layer.value_length * CACHE_BYTES[context.value_type]
    return round(cells * layer.kv_heads * (key + value)) + context.slots * layer.state_bytes


def _converted(layers: Sequence[GgufLayers], context: Context) -> int:
    """CUDA's attention reads 16 bits: a cache of another type is converted, one layer at a time."""
    found = 0
    for layer in {id(layer): layer for layer in layers}.values():
        cells = context.slots * context.window_cells(layer.window)
        key = layer.key_length if context.key_type != "f16" else 0
        value = layer.value_length if context.value_type != "f16" else 0
        found = max(found, cells * layer.kv_heads * (key + value) * _HALF)
    return found if context.flash_attention else 0


def _device_compute(
    shape: GgufShape, context: Context, number: int, counts: tuple[int, ...], output: bool
) -> int:
    if not counts[number]:
        return 0
    copies, rows = _split(len(counts))
    last = number == len(counts) - 1
    body = rows.last if last else rows.first if number == 0 else rows.middle
    return _compute(shape, context, copies, body, rows.logits if output else None)


def _split(devices: int) -> tuple[int, _Rows]:
    return (1, _ONE) if devices == 1 else (COPIES, _SEVERAL)


def _compute(
    shape: GgufShape, context: Context, copies: int, rows: int, logits_rows: int | None
) -> int:
    """The peak of a compute buffer: in a feed-forward block, in attention, or at the logits."""
    inputs, row = copies * _masks(shape, context), _row(shape, context)
    found = inputs + rows * row + max(_feed_forward(shape, context), _scores(shape, context))
    if logits_rows is None:
        return found
    logits = context.outputs * shape.vocabulary_size * _FLOAT
    return max(found, inputs + logits_rows * row + logits)


def _row(shape: GgufShape, context: Context) -> int:
    """The hidden states of a step."""
    return context.tokens * shape.embedding_length * _FLOAT


def _masks(shape: GgufShape, context: Context) -> int:
    """The attention masks of a step: one for all cells, and one for each sliding window."""
    number = _HALF if context.flash_attention else _FLOAT
    if shape.encoder:
        # Without a cache the tokens of a step see each other alone.
        return context.tokens * context.tokens * number
    windows = {layer.window for layer in shape.layers if layer.kv_heads}
    cells = [context.window_cells(window) for window in windows]
    return context.tokens * sum(cells) * number


def _feed_forward(shape: GgufShape, context: Context) -> int:
    """Gate, up and their product; the outputs of all experts are in memory before they are
    summed."""
    dense = 0 if shape.experts else 3 * shape.feed_forward_length
    inner = 3 * shape.experts_used * (shape.experts_length or shape.feed_forward_length)
    summed = (2 * shape.experts_used + 2) * shape.embedding_length
    widest = max(dense, inner, summed) if shape.experts else dense
    return context.tokens * widest * _FLOAT


def _scores(shape: GgufShape, context: Context) -> int:
    """The scores of all heads and cells; 0 with flash attention."""
    if context.flash_attention:
        return 0
    cells = max((context.window_cells(x.window) for x in shape.layers if x.kv_heads), default=0)
    return context.tokens * shape.heads * cells * _FLOAT
