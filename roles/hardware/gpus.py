"""The GPUs of a host: declared, recorded and observed hardware have the same types."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

# Labels of declared links, which only say whether pairs use NVLink.
SOME_NVLINK = "NV"
SOME_PCIE = "PCIE"

Links = tuple[tuple[int, int, str], ...]
LinkOutcome = Literal["works", "hangs", "wrong", "fails"]


def links_among(links: Links | None, indexes: Collection[int]) -> Links | None:
    """The links between the given GPUs; None if links are unknown."""
    if links is None:
        return None
    return tuple(link for link in links if link[0] in indexes and link[1] in indexes)


def reindexed_links(links: Links | None, new_indexes: Mapping[int, int]) -> Links | None:
    """The links between GPUs with a new index, renumbered; None if there are none."""
    kept = links_among(links, new_indexes.keys()) or ()
    return tuple((new_indexes[i], new_indexes[j], label) for i, j, label in kept) or None


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one slice of a GPU in MIG mode, as its driver names it.

    `index` is the driver's, in PCI bus order; on a host with MIG slices it counts all devices.
    `memory_mib` is the total that the driver reports, `reserved_mib` what it reserves of it.
    `pcie_generation` and `pcie_width` are the slot's, those with `_max` the card's maximum.
    `mig_profile` is "3g.40gb" for a slice and None for a whole GPU; `mig_parent` and `mig_index`
    identify the slice. None means unknown.
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
    """The result of an all-reduce over some GPUs of a host, measured with an engine's libraries.

    `gpus` are indexes, ascending; `p2p` is False if it ran with NCCL_P2P_DISABLE=1. `outcome` is
    "works", "hangs" (not done in time), "wrong" (wrong result) or "fails", with the library's
    message as `detail`. `gb_s` is the bus bandwidth, 2(n-1)/n of the message by its time
    (NCCL-tests' "busbw"), `transport` what NCCL chose ("P2P/CUMEM", "SHM/direct"), `library` "nccl
    2.30.7" or "gloo". It is valid for this `driver_version` and `engine` (its folder's name).
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
    PIX, PXB, PHB, NODE, SYS; XGMI on AMD), or `NV` and `PCIE` from a declaration;
    `p2p` likewise with those of `topo -p2p r` (OK, CNS, …). None means unknown. `interconnect` are
    the verdicts of measured all-reduces, one per group of GPUs, with and without P2P.
    """

    gpus: tuple[Gpu, ...]
    links: Links | None = None
    p2p: Links | None = None
    driver_version: str | None = None
    interconnect: tuple[LinkVerdict, ...] = ()

    def __hash__(self) -> int:
        # Plans hash hosts many times, and hosts have many links.
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.gpus, self.links, self.p2p, self.driver_version, self.interconnect))

    @cached_property
    def matched(self) -> bool:
        """Whether all GPUs are of one kind and size."""
        return len({(gpu.name, gpu.memory_mib) for gpu in self.gpus}) <= 1


def by_driver_index(gpus: Iterable[Gpu]) -> dict[int, list[Gpu]]:
    """Each GPU's index in the driver with its devices: itself, or its slices.

    On a host with slices `Gpu.index` counts devices, so a whole GPU follows the previous number.
    """
    gpus = tuple(gpus)
    sliced = any(gpu.mig_profile for gpu in gpus)
    groups: dict[int, list[Gpu]] = {}
    for gpu in gpus:
        counted = max(groups, default=-1) + 1 if sliced else gpu.index
        groups.setdefault(counted if gpu.mig_parent is None else gpu.mig_parent, []).append(gpu)
    return groups


def driver_indexes(hardware: Hardware) -> dict[int, int]:
    """The driver's index of each device's GPU, by `Gpu.index`; these differ only with slices.

    nvidia-smi uses this index for the GPU of a slice.
    """
    groups = by_driver_index(hardware.gpus)
    return {gpu.index: index for index, group in groups.items() for gpu in group}
