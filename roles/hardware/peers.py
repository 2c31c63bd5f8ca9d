"""Faults that slow GPUs that communicate over PCIe: access control of bridges, the IOMMU, NUMA.

Sources: NCCL's troubleshooting guide ("PCI Access Control Services"), AMD's system validation guide
(NUMA balancing), and public issue threads of hosts where GPUs hang or crawl in this state.
"""

from collections.abc import Iterator

from roles.hardware.faults import Fault
from roles.hardware.gpus import Hardware
from roles.hardware.links import nvlink_count, p2p_possible
from roles.hardware.system import GpuPath, System

BARE = "none"


def peer_faults(system: System, hardware: Hardware | None) -> Iterator[Fault]:
    """These faults, each once; faults of the bus only on bare metal, where its owner can fix
    them."""
    if hardware is None or len(hardware.gpus) < 2:
        return
    if system.virtualization == BARE:
        pairs = list(_pairs_over_pcie(system, hardware))
        yield from _acs_faults(system, pairs)
        yield from _iommu_faults(pairs)
    if system.numa_balancing and system.numa_nodes > 1:
        yield Fault(
            "numa-balancing",
            "warning",
            f"the kernel moves memory between the host's {system.numa_nodes} NUMA nodes "
            "(kernel.numa_balancing=1), and GPUs wait for it",
            "sysctl -w kernel.numa_balancing=0, and the same in a file of /etc/sysctl.d",
        )


def _pairs_over_pcie(system: System, hardware: Hardware) -> Iterator[tuple[GpuPath, GpuPath]]:
    """The PCI paths of each pair of GPUs that can use P2P, but only over PCIe."""
    paths = {path.address: path for path in system.gpu_paths}
    names = {gpu.index: gpu.name for gpu in hardware.gpus}
    path_of = {gpu.index: paths.get(gpu.pci_address or "") for gpu in hardware.gpus}
    for i, j, label in hardware.links or ():
        one, other = path_of.get(i), path_of.get(j)
        if nvlink_count(label) or one is None or other is None:
            continue
        if p2p_possible(names, hardware.p2p, i, j) is not False:
            yield one, other


def _acs_faults(system: System, pairs: list[tuple[GpuPath, GpuPath]]) -> Iterator[Fault]:
    # Bridges above both GPUs carry no traffic between them.
    between = {bridge for one, other in pairs for bridge in {*one.bridges} ^ {*other.bridges}}
    if found := sorted(between & {*system.redirecting}):
        yield Fault(
            "acs-redirects",
            "warning",
            "PCI access control (ACS) sends what GPUs say to each other up to the CPU at "
            f"{', '.join(found)}",
            "turn ACS (or VT-d, AMD-Vi) off in the BIOS, or after each boot: "
            f"for b in {' '.join(found)}; do setpci -s $b ECAP_ACS+0x6.w=0000; done",
        )


def _iommu_faults(pairs: list[tuple[GpuPath, GpuPath]]) -> Iterator[Fault]:
    paths = {path.address: path for pair in pairs for path in pair}
    if found := sorted(a for a, path in paths.items() if (path.iommu or "").startswith("DMA")):
        yield Fault(
            "iommu-translates",
            "warning",
            f"the IOMMU translates each access of the GPUs at {', '.join(found)}, which slows or "
            "hangs what they say to each other",
            "boot with iommu=pt (GRUB_CMDLINE_LINUX in /etc/default/grub, update-grub or "
            "grub2-mkconfig, reboot), or turn VT-d or AMD-Vi off in the BIOS",
        )
