"""What GPUs a host has: declared by a person or observed on the host, in the same types."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU as its driver names it.

    `index` is the driver's, in PCI bus order; `memory_mib` is the total the driver reports.
    """

    index: int
    name: str
    memory_mib: int


@dataclass(frozen=True)
class Hardware:
    """The GPUs of one host, ordered by index, and how they are linked.

    `links` is `"nvlink"` (every pair), `"pcie"` (no pair) or None when nobody said.
    """

    gpus: tuple[Gpu, ...]
    links: str | None = None
