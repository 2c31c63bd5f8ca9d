"""The memory of a GPU that is given by a colloquial name."""

import re
from functools import lru_cache

from roles.engine.params import GpuMemory
from roles.hardware import Card, find_card, usable_memory_mib

# Sizes in GB that cards with one name are sold in. Without a size the usual 80 GB of data centres
# is assumed, else the smallest.
_SIZES_GB = (80, 8, 10, 11, 12, 16, 24, 32, 40, 48, 96, 141, 180, 192)
_SIZE = re.compile(r"(?<![\w.])(\d{1,3}) ?gi?b?\b", re.IGNORECASE)
# Parts that people omit from a card's name; all editions of a card have the same memory.
_SPELLINGS = ("{}", "RTX {}", "GTX {}", "RX {}", "{} Server Edition")
# Relative tolerance when a size is compared with a card's.
_TOLERANCE = 0.05
# Cards may be rebuilt with more memory, up to this factor.
_MAX_REBUILT_FACTOR = 4
# The largest fraction of a card's nominal size that ECC and firmware use (L40S: 45 of 48 GiB).
_RESERVED_SHARE = 0.08


@lru_cache(maxsize=4096)
def named_gpu(name: str | None, memory_gib: float | None) -> GpuMemory:
    """The GPU of a name ("H100 80G") or of a memory in GiB, or of both.

    `memory_gib` is the card's size or what CUDA can use of it, whichever is nearer to the card's
    known figures. If cards share a name and no memory is given, the one with 80 GB is used, else
    the smallest. ValueError if neither determines a memory.
    """
    card = _card(name, memory_gib) if name else None
    if card is not None and (card.memory_mib or memory_gib):
        return _gpu_memory_of_card(card, memory_gib)
    if memory_gib is None and (size := _SIZE.search(name or "")):
        memory_gib = float(size[1])
    if memory_gib is None:
        raise ValueError(
            f"gpu: the memory of {name!r} is not known; set gpu.memory_gib"
            if name
            else "gpu: neither name nor memory_gib is set; set one of them"
        )
    # A whole number is a nominal size; any other is what CUDA reports.
    usable = memory_gib * 1024
    if memory_gib == int(memory_gib):
        usable = usable_memory_mib(int(usable))
    return GpuMemory(name or f"{memory_gib:g} GiB", memory_gib * 1024, usable)


def _card(name: str, memory_gib: float | None) -> Card | None:
    spellings = (pattern.format(name) for pattern in _SPELLINGS)
    found = (_find_by_spelling(spelling, memory_gib) for spelling in spellings)
    return next((card for card in found if card is not None), None)


def _find_by_spelling(name: str, memory_gib: float | None) -> Card | None:
    found = find_card(name, int(memory_gib * 1024) if memory_gib else None)
    if found is None and memory_gib is None:
        sized = (find_card(f"{name} {size}GB") for size in _SIZES_GB)
        found = next((card for card in sized if card is not None), None)
    return found


def _gpu_memory_of_card(card: Card, memory_gib: float | None) -> GpuMemory:
    links = bool(card.nvlink_gb_s and not card.nvlink_optional)
    total = card.memory_mib or (memory_gib or 0) * 1024
    if memory_gib and memory_gib * 1024 > _MAX_REBUILT_FACTOR * total:
        raise ValueError(
            f"gpu.memory_gib is {memory_gib:g}, and {card.name} has {total / 1024:.4g}; correct one"
        )
    usable = usable_memory_mib(card.memory_mib, card) if card.memory_mib else total
    if (
        memory_gib
        and memory_gib == int(memory_gib)
        and memory_gib * 1024 > total * (1 + _TOLERANCE)
    ):
        if memory_gib * 1024 * (1 - _RESERVED_SHARE) > total:
            # A card rebuilt with more memory.
            total = memory_gib * 1024
            usable = usable_memory_mib(int(total))
    elif memory_gib and _is_usable_memory(memory_gib * 1024, total, usable):
        usable = memory_gib * 1024
        total = max(total if abs(usable - total) <= _TOLERANCE * total else 0, usable)
    return GpuMemory(card.name, total, usable, card.compute_capability, links, card.gfx)


def _is_usable_memory(given: float, total: float, usable: float) -> bool:
    """Whether a given memory is what CUDA can use: it is nearer to that than to the card's size,
    or near to neither, as for a slice."""
    if abs(given - usable) > _TOLERANCE * usable and abs(given - total) > _TOLERANCE * total:
        return True
    return abs(given - usable) < abs(given - total)
