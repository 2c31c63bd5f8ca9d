"""Chooses a host's driver from its cards, the engine's needs, the settings and the system. Pure.

A problem names its setting and says what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from roles.driver.branches import Modules
from roles.driver.declared import problems_of_declaration
from roles.driver.settings import DriverSettings
from roles.driver.suited import best_branch, capability_of, is_amd, kinds_of_modules, pinned_branch
from roles.driver.system import SUPPORTED, OperatingSystem
from roles.engine import EngineNeeds
from roles.hardware import Gpu

Packaging = Literal["dkms", "precompiled"]
PackageSource = Literal["distribution", "nvidia", "amd"]

# Branches that Ubuntu 22.04 and 24.04 package as "-server" with modules signed by Canonical; 535 to
# 570 are now transitional packages of 580 (packages.ubuntu.com, 2026-11-21).
UBUNTU_SERVER = (580, 590, 595)
# Newest driver of Debian's own non-free (packages.debian.org, 2026-11-21).
_DEBIAN = {"12": 535, "13": 550}
# HGX boards whose NVSwitches are not on the host's PCI bus and need a subnet manager.
_NVLINK5 = ("B200", "B300")

SECURE_BOOT_STEPS = (
    "use Ubuntu 22.04 or 24.04, whose own repository has signed modules (driver.source: "
    "distribution); or disable Secure Boot in the host's firmware; or enrol a key by hand: "
    "install dkms and mokutil, run mokutil --import /var/lib/dkms/mok.pub (Ubuntu: "
    "/var/lib/shim-signed/mok/MOK.der), reboot, confirm it at the host's console, and deploy again"
)


@dataclass(frozen=True)
class Choice:
    """One driver. AMD's has no branch, and only open modules."""

    vendor: Literal["nvidia", "amd"]
    branch: int | None
    version: str | None
    modules: Modules
    packaging: Packaging
    source: PackageSource
    fabric_manager: bool = False
    nvlsm: bool = False

    def accepts(self, version: str | None) -> bool:
        """Whether an installed version satisfies this choice."""
        if version is None or self.vendor == "amd":
            return version is not None
        if self.version is not None:
            return version == self.version
        return version.partition(".")[0] == str(self.branch)


def choose(
    settings: DriverSettings,
    needs: EngineNeeds,
    gpus: Sequence[Gpu],
    system: OperatingSystem,
    nvswitches: int = 0,
    secure_boot: bool = False,
    own_key_enrolled: bool = False,
) -> Choice:
    """The driver of a host; ValueError with every problem, one a line.

    `own_key_enrolled`: modules that DKMS signs are accepted under Secure Boot.
    """
    problems = problems_of_declaration(settings, needs, gpus)
    if system.family is None:
        problems.append(f"driver: {system.name} is not supported; supported are {SUPPORTED}")
    if problems:
        raise ValueError("\n".join(problems))
    chosen = _amd(settings) if is_amd(gpus) else _nvidia(settings, needs, gpus, system, nvswitches)
    problems = list(_system_problems(chosen, settings, system))
    if secure_boot and not own_key_enrolled and not _is_signed(chosen, system):
        problems.append(
            "driver: Secure Boot is on, and the kernel would reject modules that are not signed by "
            f"a key it knows ({chosen.packaging} from {chosen.source}); {SECURE_BOOT_STEPS}"
        )
    if problems:
        raise ValueError("\n".join(problems))
    return chosen


def needs_fabric_manager(gpus: Sequence[Gpu], nvswitches: int) -> bool:
    """Whether the GPUs need a fabric manager: they are on an HGX board with NVSwitches.

    The NVSwitches of B200 and B300 are not on the host's PCI bus. One such GPU alone has no fabric.
    """
    return nvswitches > 0 or _has_nvlink5(gpus)


def _has_nvlink5(gpus: Sequence[Gpu]) -> bool:
    names = [gpu.name.upper() for gpu in gpus if gpu.mig_index in (None, 0)]
    return sum(any(f" {kind}" in name for kind in _NVLINK5) for name in names) > 1


def _nvidia(
    settings: DriverSettings,
    needs: EngineNeeds,
    gpus: Sequence[Gpu],
    system: OperatingSystem,
    nvswitches: int,
) -> Choice:
    branch = pinned_branch(settings) or best_branch(settings, needs, gpus)
    assert branch is not None
    source = _source(settings, branch, system)
    return Choice(
        vendor="nvidia",
        branch=branch,
        version=settings.version,
        modules=_modules(settings, gpus),
        packaging=_packaging(settings, source, system),
        source=source,
        fabric_manager=needs_fabric_manager(gpus, nvswitches),
        nvlsm=needs_fabric_manager(gpus, nvswitches)
        and any((capability_of(gpu) or 0) >= 10 for gpu in gpus),
    )


def _amd(settings: DriverSettings) -> Choice:
    return Choice("amd", None, None, "open", "dkms", "amd")


def _modules(settings: DriverSettings, gpus: Sequence[Gpu]) -> Modules:
    if settings.kernel_modules != "auto":
        return settings.kernel_modules
    return "open" if "open" in kinds_of_modules(gpus) else "proprietary"


def _source(settings: DriverSettings, branch: int, system: OperatingSystem) -> PackageSource:
    if settings.source != "auto":
        return settings.source
    # The distribution keeps only the newest version of a branch; a mirror replaces NVIDIA's
    # repository.
    free = settings.mirror is None and settings.version is None
    has = system.family == "ubuntu" and branch in UBUNTU_SERVER
    return "distribution" if has and free else "nvidia"


def _packaging(
    settings: DriverSettings, source: PackageSource, system: OperatingSystem
) -> Packaging:
    if settings.packaging != "auto":
        return settings.packaging
    signed = system.family == "ubuntu" and source == "distribution"
    return "precompiled" if signed else "dkms"


def _is_signed(chosen: Choice, system: OperatingSystem) -> bool:
    """Whether the kernel accepts the modules under Secure Boot without an enrolled key.

    NVIDIA's precompiled modules for RHEL need an enrolled key, too.
    """
    ubuntu = system.family == "ubuntu" and chosen.source == "distribution"
    return ubuntu and chosen.packaging == "precompiled"


def _system_problems(chosen: Choice, settings: DriverSettings, system: OperatingSystem):
    if chosen.vendor == "amd":
        if system.arch != "x86_64":
            yield f"driver: AMD has packages for x86_64 only, not for {system.arch}"
        return
    if system.arch not in ("x86_64", "aarch64"):
        yield f"driver: NVIDIA has packages for x86_64 and aarch64, not for {system.arch}"
    yield from _source_problems(chosen, system)
    if chosen.packaging == "precompiled" and not _has_precompiled(chosen, system):
        yield (
            f"driver.packaging: {chosen.source} has no precompiled {chosen.modules} modules for "
            f"{system.id} {system.version}; say dkms or auto"
        )


def _source_problems(chosen: Choice, system: OperatingSystem):
    if chosen.source != "distribution":
        return
    if system.family == "ubuntu" and chosen.branch not in UBUNTU_SERVER:
        branches = ", ".join(map(str, UBUNTU_SERVER))
        yield (
            f"driver.source: Ubuntu has no server driver of branch {chosen.branch}, only of "
            f"{branches}; choose one of them, or say driver.source: nvidia"
        )
    elif system.family == "debian":
        yield (
            f"driver.source: Debian {system.release} has driver {_DEBIAN[system.release]} only, "
            f"which is older than {chosen.branch}; say driver.source: nvidia"
        )
    elif system.family == "rhel":
        yield (
            f"driver.source: {system.id} {system.release} has no NVIDIA driver of its own; say "
            "driver.source: nvidia"
        )


def _has_precompiled(chosen: Choice, system: OperatingSystem) -> bool:
    if system.family == "rhel":
        # The "-open" streams hold DKMS packages (NVIDIA's yum-packaging-dkms-nvidia).
        return chosen.modules == "proprietary" and system.arch == "x86_64"
    return system.family == "ubuntu" and chosen.source == "distribution"
