"""What GPUs a host has: declared by a person, recorded or observed, in the same types."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

# The labels of declared links: every pair by NVLink, or none, and nobody said more.
SOME_NVLINK = "NV"
SOME_PCIE = "PCIE"

Links = tuple[tuple[int, int, str], ...]


def links_among(links: Links | None, indexes: Collection[int]) -> Links | None:
    """The links of which both GPUs are among some; None where nobody said any."""
    if links is None:
        return None
    return tuple(link for link in links if link[0] in indexes and link[1] in indexes)


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
class Hardware:
    """The GPUs of one host, ordered by index, and how they are linked.

    `links` has each pair once (i, j, label), i < j, with the labels of `nvidia-smi topo -m` (NV18,
    PIX, PXB, PHB, NODE, SYS; XGMI on AMD), or `NV` and `PCIE` where a person only said which;
    `p2p` likewise with those of `topo -p2p r` (OK, CNS, …). None is what nobody said.
    """

    gpus: tuple[Gpu, ...]
    links: Links | None = None
    p2p: Links | None = None
    driver_version: str | None = None

    @cached_property
    def matched(self) -> bool:
        """Whether all GPUs are of one kind and size."""
        return len({(gpu.name, gpu.memory_mib) for gpu in self.gpus}) <= 1
