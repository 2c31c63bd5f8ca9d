"""The system of a GPU host: kernel, modules, services and PCI bus."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NVIDIA = "10de"
_SWITCH_CLASS = "0680"


@dataclass(frozen=True)
class PciDevice:
    """A GPU or NVSwitch as sysfs shows it; `pci_device_id` is "10de:26b9", both in lower case."""

    address: str
    class_code: str
    pci_device_id: str
    numa_node: int | None
    kernel_driver: str | None
    pcie_width: int | None
    pcie_width_max: int | None

    @property
    def is_accelerator(self) -> bool:
        """Whether this is a PCI "processing accelerator", which has no display."""
        return self.class_code.startswith("12")

    @property
    def is_nvswitch(self) -> bool:
        """Whether this is an NVSwitch, which needs the fabric manager."""
        return self.class_code == _SWITCH_CLASS and self.pci_device_id.startswith(_NVIDIA)


@dataclass(frozen=True)
class GpuPath:
    """The position of a GPU on the PCI bus: the bridges above it, the root's first.

    `iommu` is the IOMMU's mode for it ("DMA", "DMA-FQ", "identity"), None without an IOMMU.
    """

    address: str
    bridges: tuple[str, ...]
    iommu: str | None = None


@dataclass(frozen=True)
class System:
    """One host's system. A version is None if nothing is loaded or installed.

    `driver_open` says whether the installed kernel modules are the open ones, `loaded_open` whether
    the loaded ones are; `fabric_manager` is
    "absent", "active" or what systemd calls its state. `virtualization` is what systemd calls it
    ("none", "kvm"), `redirecting` the bridges whose access control (ACS) redirects traffic between
    GPUs to the CPU, as far as root could see them. `machine` is the CPU's architecture ("x86_64"),
    `dpkg_audit` dpkg's report of half installed packages, `reboot_for` the packages for which the
    distribution requires a reboot.
    """

    os: str
    kernel: str
    ram_mib: int | None
    dev_shm_mib: int | None
    numa_nodes: int
    secure_boot: bool | None
    modules: tuple[str, ...]
    driver_loaded: str | None
    driver_installed: str | None
    driver_open: bool | None
    fabric_manager: str
    fabric_manager_version: str | None
    pci: tuple[PciDevice, ...]
    virtualization: str | None = None
    numa_balancing: bool = False
    gpu_paths: tuple[GpuPath, ...] = ()
    redirecting: tuple[str, ...] = ()
    loaded_open: bool | None = None
    machine: str = ""
    dev_shm_mounted: bool = False
    fabric_manager_at_boot: bool = False
    dpkg_audit: str = ""
    reboot_required: bool = False
    reboot_for: tuple[str, ...] = ()

    def ram_share_mib(self, count: int) -> int | None:
        """The part of the host's memory for each of several GPUs that share it with the CPUs."""
        return self.ram_mib // count if self.ram_mib else None

    @property
    def nvswitches(self) -> int:
        """Number of NVSwitches on the PCI bus."""
        return sum(device.is_nvswitch for device in self.pci)


def is_open_module(text: str) -> bool | None:
    """Whether the loaded NVIDIA module is the open one, by /proc/driver/nvidia/version."""
    return ("Open Kernel Module" in text) if "NVRM version" in text else None


def parse_system(parts: Mapping[str, str]) -> System:
    """Parse the system's parts of a report; unknown values are None."""
    license_text = parts["nvidia-license"].strip()
    reboot = parts.get("reboot-required", "").split()
    return System(
        os=_one_line(parts["os"]) or "",
        kernel=_one_line(parts["kernel"]) or "",
        ram_mib=_mib(r"MemTotal:\s+([0-9]{1,15}) kB", parts["memory"]),
        dev_shm_mib=_mib(r"\s*\S+\s+([0-9]{1,15})\s", parts["shm"]),
        numa_nodes=len(parts["numa"].split()),
        secure_boot=_secure_boot(parts["secure-boot"]),
        modules=tuple(sorted(parts["modules"].split())),
        driver_loaded=_version(parts["nvidia-loaded"]),
        driver_installed=_version(parts["nvidia-installed"]),
        driver_open=("GPL" in license_text) if license_text else None,
        fabric_manager=_unit_state(parts["fabric-manager"]),
        fabric_manager_version=_version(parts["fabric-manager"]),
        pci=tuple(filter(None, map(_pci_device, parts["pci"].splitlines()))),
        virtualization=_one_line(parts.get("virtualization", "")),
        # Mode 2 is for memory tiers, and moves nothing between equal nodes.
        numa_balancing=parts.get("numa-balancing", "").strip() in ("1", "3"),
        loaded_open=is_open_module(parts.get("nvidia-loaded-kind", "")),
        gpu_paths=tuple(filter(None, map(_gpu_path, parts.get("paths", "").splitlines()))),
        redirecting=tuple(filter(None, map(_redirecting, parts.get("acs", "").splitlines()))),
        machine=_one_line(parts.get("machine", "")) or "",
        # df names the parent file system if /dev/shm is not a mount.
        dev_shm_mounted=parts["shm"].split()[-1:] == ["/dev/shm"],
        fabric_manager_at_boot=_unit_is_enabled(parts["fabric-manager"]),
        dpkg_audit=_one_line(parts.get("dpkg-audit", "")) or "",
        reboot_required=reboot[:1] == ["yes"],
        reboot_for=tuple(dict.fromkeys(reboot[1:])),
    )


def _one_line(text: str) -> str | None:
    return " ".join(text.split()) or None


def _mib(pattern: str, text: str) -> int | None:
    match = re.match(pattern, text)
    return int(match[1]) // 1024 if match else None


def _secure_boot(text: str) -> bool | None:
    """From mokutil's text, or from the last byte of the EFI variable."""
    if "SecureBoot enabled" in text:
        return True
    if "SecureBoot disabled" in text:
        return False
    numbers = text.split()
    return numbers[-1] == "1" if numbers and all(map(str.isdigit, numbers)) else None


def _version(text: str) -> str | None:
    match = re.search(r"\b[0-9]{3,4}\.[0-9]{1,4}(?:\.[0-9]{1,4})?\b", text)
    return match[0] if match else None


def _unit_state(text: str) -> str:
    shown = dict(re.findall(r"^(LoadState|ActiveState)=(\S*)", text, re.MULTILINE))
    if shown.get("LoadState") in (None, "not-found"):
        return "absent"
    return shown.get("ActiveState", "unknown")


def _unit_is_enabled(text: str) -> bool:
    return bool(re.search(r"^UnitFileState=(enabled|static|generated)$", text, re.MULTILINE))


def _pci_device(line: str) -> PciDevice | None:
    match = re.fullmatch(
        r"(\S+) 0x(\w{6}) 0x(\w{4}) 0x(\w{4}) numa=(-?[0-9]{0,9}) driver=(\S*) "
        r"width=([0-9]{0,9})/([0-9]{0,9})",
        line.strip(),
    )
    if match is None:
        return None
    address, kind, vendor, device, numa, driver, width, width_max = match.groups()
    return PciDevice(
        address=address.lower(),
        class_code=kind[:4].lower(),
        pci_device_id=f"{vendor}:{device}".lower(),
        # A host with one node says -1.
        numa_node=int(numa) if numa.isdigit() else None,
        kernel_driver=driver or None,
        pcie_width=int(width) if width else None,
        # sysfs says 255 for what it does not know.
        pcie_width_max=int(width_max) if width_max and width_max != "255" else None,
    )


_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def _gpu_path(line: str) -> GpuPath | None:
    """A GPU with its IOMMU mode and its sysfs path, which contains the bridges above it."""
    match = re.fullmatch(r"(\S+) iommu=(\S*) (/\S+)", line.strip())
    if match is None:
        return None
    above = [part for part in match[3].lower().split("/") if _ADDRESS.fullmatch(part)]
    return GpuPath(match[1].lower(), tuple(above[:-1]), match[2] or None)


def _redirecting(line: str) -> str | None:
    """The bridge of a line of `lspci -vv` whose access control redirects requests or answers."""
    match = re.match(r"(\S+)\s+ACSCtl:(.*)", line.strip())
    if match is None or not re.search(r"\b(ReqRedir|CmpltRedir)\+", match[2]):
        return None
    return match[1].lower()
