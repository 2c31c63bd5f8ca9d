"""Allocates a host's GPUs to services: pinned ones first, the rest by shares."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from roles.hardware import Gpu, Hardware, links_among


def allocate(
    hardware: Hardware,
    shares: Mapping[str, float | None],
    pinned: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Hardware]:
    """The part of a host that each service gets, in the order of `shares`.

    `pinned` maps services to the indexes of their GPUs; they get exactly these. The other services
    get the rest by their shares, in whole GPUs, with near GPUs together. Services without a share
    split the remainder. ValueError if a pin names an unknown GPU, or a GPU is pinned twice.
    """
    pins = pinned or {}
    _check_pins(hardware, shares, pins)
    taken = {index for indexes in pins.values() for index in indexes}
    free = sorted(
        (gpu for gpu in hardware.gpus if gpu.index not in taken),
        key=lambda gpu: (gpu.name, gpu.memory_mib, gpu.numa_node or 0, gpu.index),
    )
    counts = _gpu_counts(len(free), {name: shares[name] for name in shares if name not in pins})
    parts: dict[str, Hardware] = {}
    for name in shares:
        if name in pins:
            own = [gpu for gpu in hardware.gpus if gpu.index in pins[name]]
        else:
            own, free = free[: counts[name]], free[counts[name] :]
        parts[name] = part_of(hardware, own)
    return parts


def part_of(hardware: Hardware, gpus: Sequence[Gpu]) -> Hardware:
    """A part of the hardware: some GPUs, with the links among them."""
    own = {gpu.index for gpu in gpus}
    return replace(
        hardware,
        gpus=tuple(sorted(gpus, key=lambda gpu: gpu.index)),
        links=links_among(hardware.links, own),
        p2p=links_among(hardware.p2p, own),
        interconnect=tuple(one for one in hardware.interconnect if own.issuperset(one.gpus)),
    )


def _check_pins(
    hardware: Hardware, shares: Mapping[str, float | None], pins: Mapping[str, Sequence[int]]
) -> None:
    host_gpus = {gpu.index for gpu in hardware.gpus}
    owner: dict[int, str] = {}
    for name, indexes in pins.items():
        if name not in shares:
            raise ValueError(f"{name} is no service; it is one of {', '.join(shares)}")
        for index in indexes:
            if index not in host_gpus:
                raise ValueError(
                    f"{name}: the host has no GPU {index}; its last is {max(host_gpus, default=0)}"
                )
            if owner.get(index) == name:
                raise ValueError(f"{name} names GPU {index} twice; remove one")
            if index in owner:
                raise ValueError(
                    f"{name}: GPU {index} is pinned to {owner[index]} too; give it to one of them"
                )
            owner[index] = name


def _gpu_counts(gpus: int, shares: Mapping[str, float | None]) -> dict[str, int]:
    """Whole GPUs by shares; the remainder goes to the largest fractions, to the first of equal
    ones."""
    stated = sum(share for share in shares.values() if share is not None)
    without_share = [name for name, share in shares.items() if share is None]
    each = max(0.0, 1 - stated) / len(without_share) if without_share else 0.0
    exact = {name: gpus * (each if share is None else share) for name, share in shares.items()}
    counts = {name: int(part + 1e-9) for name, part in exact.items()}
    over = round(sum(exact.values()) + 1e-9) - sum(counts.values())
    by_fraction = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_fraction[: max(0, over)]:
        counts[name] += 1
    return counts
