"""The state of a host's driver: the questions to the host, and the parser of its answers. Pure."""

import base64
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roles.driver.files import OURS
from roles.driver.packages import is_driver, is_of_one_kernel, numbers, upstream
from roles.driver.system import OperatingSystem
from roles.hardware import HardwareReport, is_integrated
from roles.host import Part, Sections, parse_states, paths, require

PART = Part(
    "driver",
    Path(__file__).with_name("ask.sh").read_text(encoding="utf-8"),
    root=True,
    arguments=(paths.UNIT_GLOB, *OURS),
)

_LABELS = (
    *("kernels", "next", "headers", "packages", "held", "interrupted", "modules", "open-modules"),
    *("amdgpu-modules", "amdgpu-source", "amdgpu-loaded", "library", "rocm-smi", "kfd", "replicas"),
    *("container", "outside", "nouveau-blocked", "initramfs-old", "nvidia-persistenced", "free"),
    *("own-key", "kernel-upgraded", "amdgpu-upgraded", "sources", "files", "keys"),
)


@dataclass(frozen=True)
class SystemdUnit:
    """A systemd unit: whether it exists, runs, and starts at boot."""

    present: bool = False
    active: bool = False
    enabled: bool = False


@dataclass(frozen=True)
class DriverState:
    """A host's driver and its environment. Versions are NVIDIA's ("580.95.05"), None for none.

    `next_kernel` boots next; `module` is the version for the running kernel, `modules` for each,
    `open_modules` names the kernels whose module is the open one, `loaded_open` says whether the
    loaded one is;
    `amdgpu_built_for` names the kernels whose amdgpu is none of their own;
    `amdgpu_source` and `amdgpu_loaded` identify the source of amdgpu on the disk and of the loaded
    one. `packages` maps a package to its version; `half` are half installed packages. `answers` is
    the version that nvidia-smi reports. `amd_gpus` is the number of GPUs that amd-smi lists (None:
    it fails), `kfd_gpus` the number that amdgpu offers, both without a processor's graphics.
    `replicas` are our units that run on the host.
    `container`: systemd's name for the container, if the kernel is another machine's.
    `kernel_upgraded`: a deploy upgraded the kernel since the last boot; `amdgpu_upgraded`: the
    version to which a deploy upgraded amdgpu.
    `free_mib` maps /usr, /boot and /var to their file system and its free MiB.
    """

    system: OperatingSystem
    kernel: str
    next_kernel: str
    headers: frozenset[str] = frozenset()
    packages: Mapping[str, str] = field(default_factory=dict)
    half: tuple[str, ...] = ()
    held: frozenset[str] = frozenset()
    interrupted: bool = False
    module: str | None = None
    modules: Mapping[str, str] = field(default_factory=dict)
    open_modules: frozenset[str] = frozenset()
    amdgpu_module: str | None = None
    amdgpu_built_for: frozenset[str] = frozenset()
    amdgpu_source: str | None = None
    amdgpu_loaded: str | None = None
    loaded: str | None = None
    loaded_open: bool | None = None
    in_kernel: frozenset[str] = frozenset()
    library: str | None = None
    answers: str | None = None
    has_nvidia_smi: bool = False
    amd_gpus: int | None = None
    has_rocm_smi: bool = False
    kfd_gpus: int = 0
    replicas: tuple[str, ...] = ()
    container: str | None = None
    outside: bool = False
    nouveau_blocked: bool = False
    initramfs_old: bool = False
    persistence: SystemdUnit = SystemdUnit()
    fabric_manager: SystemdUnit = SystemdUnit()
    fabric_manager_version: str | None = None
    nvswitches: int = 0
    free_mib: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    secure_boot: bool = False
    own_key_enrolled: bool = False
    reboot_required_by: tuple[str, ...] = ()
    kernel_upgraded: bool = False
    amdgpu_upgraded: str | None = None
    sources: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def amdgpu_built(self) -> bool:
        """Whether the running kernel's amdgpu was built on the host."""
        return self.kernel in self.amdgpu_built_for

    @property
    def driver_packages(self) -> dict[str, str]:
        """The installed packages of a driver, each with NVIDIA's version."""
        return {
            name: upstream(version) for name, version in self.packages.items() if is_driver(name)
        }

    @property
    def kinds_of_kernel(self) -> tuple[str, ...]:
        """The kinds of kernel that installed apt packages bring: "amd64", "generic-hwe-24.04"."""
        start = "linux-image-"
        images = [name for name in self.packages if name.startswith(start)]
        return tuple(name.removeprefix(start) for name in images if not is_of_one_kernel(name))

    @property
    def unpackaged(self) -> bool:
        """Whether a driver was installed without packages: by NVIDIA's .run installer or by
        hand."""
        present = self.module is not None or self.answers is not None
        return self.outside or (present and not self.driver_packages)


def parse_state(sections: Sections, report: HardwareReport) -> DriverState:
    """Parse a host's answer to `PART`, together with its hardware's report.

    ValueError if the answer is cut short, or could not be asked as root."""
    require(sections, _LABELS, "its driver")
    host, kernel = report.system, report.system.kernel
    name, version, *_ = [*host.os.split(), "", ""]
    system = OperatingSystem(name, version, host.machine)
    packages, half = _packages(sections["packages"])
    return DriverState(
        system=system,
        kernel=kernel,
        next_kernel=sections["next"].strip() or _newest(sections["kernels"].split()) or kernel,
        headers=frozenset(sections["headers"].split()),
        packages=packages,
        half=half,
        held=frozenset(_held(sections["held"], system.uses_apt)),
        interrupted=bool(sections["interrupted"].strip() or host.dpkg_audit or half),
        **_reported(report),
        **_driver(sections, report),
        free_mib=_free(sections["free"]),
        own_key_enrolled=has_own_key(sections),
        kernel_upgraded=bool(sections["kernel-upgraded"].strip()),
        amdgpu_upgraded=sections["amdgpu-upgraded"].strip() or None,
        sources=tuple(sections["sources"].splitlines()),
        files=parse_states(sections["files"].splitlines()),
        keys=_keys(sections["keys"]),
    )


def has_own_key(sections: Sections) -> bool:
    """Whether Secure Boot accepts the host's own signing key; False if that is unknown."""
    return "already enrolled" in sections.get("own-key", "")


def _reported(report: HardwareReport) -> dict[str, Any]:
    """The fields that follow from the hardware's report."""
    host, answers = report.system, report.answers
    present = host.fabric_manager != "absent"
    return {
        "module": host.driver_installed,
        "loaded": host.driver_loaded,
        "loaded_open": host.loaded_open,
        "in_kernel": frozenset(host.modules),
        "answers": next((v for gpu in answers.gpus or () if (v := gpu.driver_version)), None),
        "has_nvidia_smi": not answers.query.missing,
        "fabric_manager": SystemdUnit(
            present, host.fabric_manager == "active", host.fabric_manager_at_boot
        ),
        "fabric_manager_version": host.fabric_manager_version,
        "nvswitches": host.nvswitches,
        "secure_boot": bool(host.secure_boot),
        "reboot_required_by": host.reboot_for,
    }


def _driver(sections: Sections, report: HardwareReport) -> dict[str, Any]:
    """The fields of the driver itself: its modules, tools, daemons and users."""
    modules = _by_first_word(sections["amdgpu-modules"])
    nodes = _are_integrated(sections["kfd"])
    return {
        "modules": _by_first_word(sections["modules"]),
        "open_modules": frozenset(sections["open-modules"].split()),
        "amdgpu_module": modules.get(report.system.kernel),
        "amdgpu_built_for": frozenset(k for k, path in modules.items() if _is_built(path)),
        "amdgpu_source": sections["amdgpu-source"].strip() or None,
        "amdgpu_loaded": sections["amdgpu-loaded"].strip() or None,
        "library": max(sections["library"].split(), key=numbers, default=None),
        "amd_gpus": _amd_gpus(report, nodes.count(True)),
        "has_rocm_smi": bool(sections["rocm-smi"].strip()),
        "kfd_gpus": nodes.count(False),
        "replicas": tuple(sections["replicas"].split()),
        "container": _container(sections["container"].strip()),
        "outside": bool(sections["outside"].strip()),
        "nouveau_blocked": bool(sections["nouveau-blocked"].strip()),
        "initramfs_old": bool(sections["initramfs-old"].strip()),
        "persistence": _unit(sections["nvidia-persistenced"]),
    }


def _amd_gpus(report: HardwareReport, integrated: int) -> int | None:
    """The number of GPUs that amd-smi lists without integrated ones; None if it is missing or
    hangs."""
    answers = report.answers
    if answers.amd_tool != "amd-smi" or answers.amd.missing or answers.amd.hung:
        return None
    return max(0, len(answers.amd_gpus or ()) - integrated)


def _is_built(path: str) -> bool:
    """Whether a module was built on the host: DKMS installs into updates/ or extra/."""
    return path.startswith("/") and "/kernel/drivers/" not in path


def _are_integrated(text: str) -> list[bool]:
    """For each kernel node (PCI device in decimal, bytes): whether it is integrated graphics."""
    found = []
    for line in text.splitlines():
        device, size, *_ = [*line.split(), "", ""]
        memory_mib = int(size) // 2**20 if size.isdigit() else None
        found.append(is_integrated(f"1002:{int(device):04x}", memory_mib) if device else False)
    return found


def _keys(text: str) -> dict[str, str]:
    """Key files in base64 by path; an incomplete one is left out."""
    found = {}
    for line in text.splitlines():
        path, _, key = line.partition(" ")
        if not key:
            continue
        with contextlib.suppress(ValueError):
            base64.b64decode(key, validate=True)
            found[path] = key
    return found


def _container(kind: str) -> str | None:
    """The kind of container, of those that cannot load modules; None for any other host."""
    return kind if kind in ("wsl", "docker", "podman", "lxc", "lxc-libvirt", "openvz") else None


def _packages(text: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Installed packages with versions, and half installed ones (by dpkg's state letters).

    If rpm has several versions of a package, such as kernels, the newest counts.
    """
    installed: dict[str, str] = {}
    half = []
    for line in text.splitlines():
        name, version, state, *_ = [*line.split(), "", "", ""]
        name = name.partition(":")[0]
        if state[1:2] == "i" and len(state) <= 2:
            installed[name] = max(version, installed.get(name, version), key=numbers)
        elif state[1:2] in ("H", "U", "F", "W", "t") or state[2:3] == "R":
            half.append(name)
            installed[name] = version
    return installed, tuple(half)


def _held(text: str, apt: bool) -> list[str]:
    """Names that are held; dnf's list has "name-epoch:version-release.*"."""
    lines = [line.strip() for line in text.splitlines()]
    if apt:
        return [line.partition(":")[0] for line in lines if line]
    found = [
        re.match(r"(.+)-(?:[0-9]+:)?[^-]+-[^-]+$", line) for line in lines if line[:1] not in "#!"
    ]
    return [match[1] for match in found if match]


def _newest(kernels: list[str]) -> str | None:
    return max(kernels, key=numbers, default=None)


def _unit(text: str) -> SystemdUnit:
    shown = dict(re.findall(r"^(\w+)=(\S*)", text, re.MULTILINE))
    return SystemdUnit(
        shown.get("LoadState") == "loaded",
        shown.get("ActiveState") == "active",
        shown.get("UnitFileState") in ("enabled", "static", "generated"),
    )


def _free(text: str) -> dict[str, tuple[str, int]]:
    found = {}
    rows = [line.split() for line in text.splitlines()]
    # df prints one row for each path asked, with the mount point that it is on.
    for path, row in zip(("/usr", "/boot", "/var"), rows, strict=False):
        if len(row) >= 2 and row[1].isdigit():
            found[path] = (row[-1], int(row[1]) // 1024)
    return found if len(rows) == 3 else {}


def _by_first_word(text: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
