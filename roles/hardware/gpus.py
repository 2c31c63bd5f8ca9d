"""What GPUs a host has: declared by a person, recorded or observed, in the same types."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

# The labels of declared links: every pair by NVLink, or none, and nobody said more.
SOME_NVLINK = "NV"
SOME_PCIE = "PCIE"

Links = tuple[tuple[int, int, str], ...]
LinkOutcome = Literal["works", "hangs", "wrong", "fails"]


def links_among(links: Links | None, indexes: Collection[int]) -> Links | None:
    """The links of which both GPUs are among some; None where nobody said any."""
    if links is None:
        return None
    return tuple(link for link in links if link[0] in indexes and link[1] in indexes)


def reindexed_links(links: Links | None, new_indexes: Mapping[int, int]) -> Links | None:
    """The links of which both GPUs have a place, by these places; None where there are none."""
    kept = links_among(links, new_indexes.keys()) or ()
    return tuple((new_indexes[i], new_indexes[j], label) for i, j, label in kept) or None


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one slice of a GPU in MIG mode, as its driver names it.

    `index` is the driver's, in PCI bus order; on a host with MIG slices it is the place among all
    its devices. `memory_mib` is the total that the driver reports, `reserved_mib` what it keeps of
    it. `pcie_generation` and `pcie_width` are what the slot gives, those with `_max` what the card
    can do. `mig_profile` is "3g.40gb" for a slice and None for a whole GPU; `mig_parent` and
    `mig_index` say which slice of which GPU it is. None is what nobody said.
    """

    index: int
    name: str
    memory_mib: int
    reserved_mib: int | None = None
    compute_capability: float | None = None
    pci_address: str | None = None
    pci_device_id: str | None = None
    numa_node: int | None = None
    pcie_generation: int | None = None
    pcie_generation_max: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    mig_profile: str | None = None
    mig_parent: int | None = None
    mig_index: int | None = None


@dataclass(frozen=True)
class LinkVerdict:
    """What an all-reduce over some GPUs of a host did, measured with an engine's own libraries.

    `gpus` are indexes, ascending; `p2p` is False where it ran with NCCL_P2P_DISABLE=1. `outcome` is
    "works", "hangs" (not done in time), "wrong" (another result) or "fails", with `detail` in the
    library's words. `gb_s` is the bus bandwidth, 2(n-1)/n of the message by its time (NCCL-tests'
    "busbw"), `transport` what NCCL chose ("P2P/CUMEM", "SHM/direct"), `library` "nccl 2.30.7" or
    "gloo". It counts for the `driver_version` and the `engine` (its folder's name) of then.
    """

    gpus: tuple[int, ...]
    p2p: bool
    outcome: LinkOutcome
    gb_s: float | None = None
    transport: str | None = None
    library: str | None = None
    driver_version: str | None = None
    engine: str | None = None
    detail: str | None = None

    @property
    def works(self) -> bool:
        """Whether the all-reduce ended in time with the right result."""
        return self.outcome == "works"


@dataclass(frozen=True)
class Hardware:
    """The GPUs of one host, ordered by index, and how they are linked.

    `links` has each pair once (i, j, label), i < j, with the labels of `nvidia-smi topo -m` (NV18,
    PIX, PXB, PHB, NODE, SYS; XGMI on AMD), or `NV` and `PCIE` where a person only said which;
    `p2p` likewise with those of `topo -p2p r` (OK, CNS, …). None is what nobody said.
    `interconnect` are the verdicts of all-reduces measured here, each group and way once.
    """

    gpus: tuple[Gpu, ...]
    links: Links | None = None
    p2p: Links | None = None
    driver_version: str | None = None
    interconnect: tuple[LinkVerdict, ...] = ()

    @cached_property
    def matched(self) -> bool:
        """Whether all GPUs are of one kind and size."""
        return len({(gpu.name, gpu.memory_mib) for gpu in self.gpus}) <= 1


def by_driver_index(gpus: Iterable[Gpu]) -> dict[int, list[Gpu]]:
    """Each GPU's index in the driver with its devices: itself, or its slices.

    On a host with slices `Gpu.index` counts devices, so whole GPUs count on from the one before.
    """
    gpus = tuple(gpus)
    sliced = any(gpu.mig_profile for gpu in gpus)
    groups: dict[int, list[Gpu]] = {}
    for gpu in gpus:
        counted = max(groups, default=-1) + 1 if sliced else gpu.index
        groups.setdefault(counted if gpu.mig_parent is None else gpu.mig_parent, []).append(gpu)
    return groups


def driver_indexes(hardware: Hardware) -> dict[int, int]:
    """The driver's index of each device's GPU by `Gpu.index`: another only where there are slices.

    It is what nvidia-smi calls the GPU that a slice is of.
    """
    groups = by_driver_index(hardware.gpus)
    return {gpu.index: index for index, group in groups.items() for gpu in group}
