"""The distribution of layers over cards: values for `--tensor-split`, and their effect.

Source: llama.cpp b11434, `src/llama-model.cpp` load_tensors: layer i of n (the output is one more)
lies on the first card whose part of the running sum exceeds i / n, in 32-bit numbers.
"""

import struct
from bisect import bisect_right
from collections.abc import Sequence

from roles.engine.gguf.context import Context
from roles.engine.gguf.memory import Part, device_parts, kv_bytes, output_weights
from roles.engine.params import GIB
from roles.models import GgufShape

# Bisection steps for the smallest fraction of the cards' memory that holds all layers.
_STEPS = 40


def layer_counts(split: Sequence[float], layers: int) -> tuple[int, ...]:
    """How many of the layers and the output are on each card, as llama.cpp computes it."""
    total = 0.0
    bounds: list[float] = []
    for part in split:
        total = _float32(total + _float32(part))
        bounds.append(total)
    bounds = [_float32(bound / total) for bound in bounds]
    counts = [0] * len(split)
    for layer in range(layers + 1):
        place = bisect_right(bounds, _float32(layer / (layers + 1)))
        counts[min(place, len(split) - 1)] += 1
    return tuple(counts)


def tensor_split(
    shape: GgufShape, context: Context, rooms: Sequence[float]
) -> tuple[float, ...] | None:
    """The values of a split with which all layers fit; None if there is none.

    `rooms` are the bytes of each card. The values are the rooms in GiB if these work; otherwise the
    numbers of layers that minimise the load of the fullest card.
    """
    if min(rooms) <= 0:
        return None
    by_room = tuple(round(room / GIB, 1) for room in rooms)
    layers = len(shape.every_layer)
    if min(by_room) > 0 and _fits(shape, context, layer_counts(by_room, layers), rooms):
        return by_room
    counts = _best_counts(shape, context, rooms)
    return None if counts is None else tuple(map(float, counts))


def parts_of(shape: GgufShape, context: Context, split: Sequence[float]) -> tuple[Part, ...]:
    """The memory on each card under a split; () means one card."""
    counts = layer_counts(split or (1.0,), len(shape.every_layer))
    return device_parts(shape, context, counts)


def _fits(
    shape: GgufShape, context: Context, counts: tuple[int, ...], rooms: Sequence[float]
) -> bool:
    if min(counts) < 1:
        return False
    parts = device_parts(shape, context, counts)
    return all(part.total <= room for part, room in zip(parts, rooms, strict=True))


def _best_counts(
    shape: GgufShape, context: Context, rooms: Sequence[float]
) -> tuple[int, ...] | None:
    """The layer counts that minimise the load of the fullest card, found by bisection."""
    sizes = [layer.weights_bytes + kv_bytes((layer,), context) for layer in shape.every_layer]
    sizes.append(output_weights(shape))
    if len(sizes) < len(rooms):
        return None
    # What a card holds regardless of its layers; the output is on the last card.
    counts = (*(1 for _ in rooms[1:]), len(sizes) - len(rooms) + 1)
    parts = device_parts(shape, context, counts)
    converted = max(part.converted for part in parts)
    fixed = [part.compute + converted for part in parts]
    found = _counts_within(sizes, fixed, rooms, 1.0)
    low, high = 0.0, 1.0
    for _ in range(_STEPS if found else 0):
        middle = (low + high) / 2
        better = _counts_within(sizes, fixed, rooms, middle)
        low, high = (low, middle) if better else (middle, high)
        found = better or found
    return found if found and _fits(shape, context, found, rooms) else None


def _counts_within(
    sizes: Sequence[int], fixed: Sequence[int], rooms: Sequence[float], share: float
) -> tuple[int, ...] | None:
    """Fill each card in turn up to a fraction of its room; None if layers are left over."""
    counts: list[int] = []
    begin = 0
    for number, room in enumerate(rooms):
        # Each later card needs at least one.
        until, end, taken = len(sizes) - (len(rooms) - number - 1), begin, fixed[number]
        while end < until and taken + sizes[end] <= share * room:
            taken += sizes[end]
            end += 1
        if end == begin:
            return None
        counts.append(end - begin)
        begin = end
    return tuple(counts) if begin == len(sizes) else None


def _float32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]
