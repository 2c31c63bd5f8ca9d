"""Chooses a host's driver from its cards, the engine's needs, the settings and the system. Pure.

A problem names its setting and says what to do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from roles.driver.branches import BRANCHES, OPEN_ONLY_FROM, Modules, branch_list, driver_support
from roles.driver.keys import own_key
from roles.driver.settings import DriverSettings
from roles.driver.system import SUPPORTED, OperatingSystem
from roles.engine import EngineNeeds
from roles.hardware import Gpu, find_card, is_amd_gpu

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


def problems_of_declaration(
    settings: DriverSettings, needs: EngineNeeds, gpus: Sequence[Gpu]
) -> list[str]:
    """The problems that the inventory alone shows, before any host is contacted."""
    vendors = {is_amd_gpu(gpu) for gpu in gpus}
    if len(vendors) > 1:
        return ["gpus: NVIDIA and AMD in one host: no engine uses both; keep them in two hosts"]
    if vendors == {True}:
        return [
            *_device_problems(needs, gpus),
            *_key_problems(settings),
            *_amd_problems(settings),
        ]
    pinned = pinned_branch(settings)
    return [
        *_device_problems(needs, gpus),
        *_key_problems(settings),
        *_pin_problems(settings, needs, pinned),
        *_too_old(needs, gpus),
        *_module_problems(settings, gpus),
        *([] if pinned is None else _branch_cannot_serve(settings, pinned, gpus)),
        *_no_branch(settings, needs, gpus),
    ]


def pinned_branch(settings: DriverSettings) -> int | None:
    """The branch that the settings name, directly or by a version."""
    if settings.version is not None:
        return branch_of(settings.version)
    return settings.branch


def branch_of(version: str) -> int:
    """The branch of NVIDIA's version: 580 of "580.95.05"."""
    return int(version.partition(".")[0])


def is_amd(gpus: Iterable[Gpu]) -> bool:
    """Whether the GPUs are AMD's."""
    return any(is_amd_gpu(gpu) for gpu in gpus)


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
    branch = pinned_branch(settings) or _best(settings, needs, gpus)
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
        and any((_capability(gpu) or 0) >= 10 for gpu in gpus),
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


def _device_problems(needs: EngineNeeds, gpus: Sequence[Gpu]):
    """Problems of an engine that is built for the other vendor's GPUs."""
    if not gpus or needs.device == "cpu":
        return
    fitting, vendor = ("rocm", "AMD's") if is_amd(gpus) else ("cuda", "NVIDIA's")
    if needs.device != fitting:
        names = ", ".join(dict.fromkeys(gpu.name for gpu in gpus))
        yield (
            f"engine.device: {needs.device} does not run on {names}, which are {vendor}; say "
            f"{fitting}"
        )


def _key_problems(settings: DriverSettings):
    if settings.mirror_key_file is None:
        return
    if settings.mirror is None:
        yield "driver.mirror_key_file: is of a mirror; give driver.mirror too, or leave it out"
    try:
        own_key(settings.mirror_key_file)
    except ValueError as error:
        yield f"{error}; put the mirror's public signing key into it"


def _amd_problems(settings: DriverSettings):
    for name in ("branch", "version"):
        if getattr(settings, name) is not None:
            yield f"driver.{name}: is NVIDIA's, and the GPUs are AMD's; leave it out"
    if settings.kernel_modules == "proprietary":
        yield "driver.kernel_modules: AMD has none but open ones; leave it out"
    if settings.packaging == "precompiled":
        yield "driver.packaging: AMD's driver comes as DKMS only; leave it out"
    if settings.source in ("distribution", "nvidia"):
        yield f"driver.source: {settings.source} has no driver for AMD's GPUs; leave it out"


def _pin_problems(settings: DriverSettings, needs: EngineNeeds, pinned: int | None):
    if pinned is None:
        return
    where = "driver.version" if settings.version else "driver.branch"
    if settings.version and settings.branch not in (None, pinned):
        yield (
            f"driver.version: {settings.version} is not of branch {settings.branch}; leave "
            "driver.branch out, or choose a version of it"
        )
    if pinned not in {branch.number for branch in BRANCHES}:
        yield f"{where}: branch {pinned} does not exist; there are {branch_list()}"
    elif needs.driver_branch is not None and pinned < needs.driver_branch:
        enough = tuple(one for one in BRANCHES if one.number >= needs.driver_branch)
        yield (
            f"{where}: {settings.version or pinned} is older than {needs.name} needs (CUDA "
            f"{needs.cuda}: driver {needs.driver_branch} or newer); choose one of "
            f"{branch_list(enough)}"
        )


def _too_old(needs: EngineNeeds, gpus: Sequence[Gpu]):
    least, older = needs.compute_capability, needs.older_build
    for name, has in sorted({(gpu.name, _capability(gpu)) for gpu in gpus}, key=str):
        if least is None or has is None or has >= least:
            continue
        others = (
            f"an engine built for CUDA 12 does, for instance {older.name}"
            if older and has >= older.compute_capability
            else "there is no build of it for this GPU: choose another engine, or take the GPU "
            "out of the host or of the inventory"
        )
        yield (
            f"gpus: {name} has compute capability {has}, and {needs.name} (CUDA {needs.cuda}) "
            f"needs {least}: no driver changes that; {others}"
        )


def _module_problems(settings: DriverSettings, gpus: Sequence[Gpu]):
    kinds, setting = kinds_of_modules(gpus), settings.kernel_modules
    if gpus and not kinds:
        groups: dict[str, list[str]] = {}
        for gpu in gpus:
            groups.setdefault(
                "/".join(driver_support(_capability(gpu)).modules) or "none", []
            ).append(_gpu_label(gpu))
        by_kind = "; ".join(
            f"{kind}: {', '.join(dict.fromkeys(names))}" for kind, names in groups.items()
        )
        yield f"gpus: no kernel modules serve them all ({by_kind}); keep them in different hosts"
    elif setting != "auto" and gpus and setting not in kinds:
        names = [
            _gpu_label(gpu)
            for gpu in gpus
            if setting not in driver_support(_capability(gpu)).modules
        ]
        yield (
            f"driver.kernel_modules: {setting} modules do not serve "
            f"{', '.join(dict.fromkeys(names))}; say {kinds[0]} or auto"
        )
    branch = pinned_branch(settings)
    if setting == "proprietary" and branch is not None and branch >= OPEN_ONLY_FROM:
        yield f"driver.kernel_modules: branch {branch} has only open modules; say open or auto"


def _branch_cannot_serve(settings: DriverSettings, branch: int, gpus: Sequence[Gpu]):
    where = "driver.version" if settings.version else "driver.branch"
    for gpu in {_gpu_label(gpu): gpu for gpu in gpus}.values():
        reach = driver_support(_capability(gpu))
        if reach.last is not None and branch > reach.last:
            yield (
                f"{where}: branch {branch} does not serve {_gpu_label(gpu)}: {reach.last} is the "
                "last "
                "branch that does; choose it or leave the branch out"
            )
        elif branch < reach.first:
            newer = tuple(one for one in BRANCHES if one.number >= reach.first)
            yield (
                f"{where}: branch {branch} does not serve {_gpu_label(gpu)}; choose one of "
                f"{branch_list(newer)}"
            )


def _no_branch(settings: DriverSettings, needs: EngineNeeds, gpus: Sequence[Gpu]):
    if (
        pinned_branch(settings) is None
        and kinds_of_modules(gpus)
        and _best(settings, needs, gpus) is None
    ):
        least = needs.driver_branch
        yield (
            "gpus: no maintained driver branch serves "
            f"{', '.join(dict.fromkeys(map(_gpu_label, gpus)))}"
            f"{f' and is at least {least}, as {needs.name} needs' if least else ''}; there are "
            f"{branch_list()}"
        )


def _best(settings: DriverSettings, needs: EngineNeeds, gpus: Sequence[Gpu]) -> int | None:
    """The newest long-term branch that supports all GPUs, else the newest such production
    branch."""
    fitting = [one for one in BRANCHES if not one.ended and fits(one.number, needs, gpus)]
    for kind in ("long-term", "production"):
        found = [branch.number for branch in fitting if branch.kind == kind]
        if found:
            return max(found)
    return None


def fits(branch: int, needs: EngineNeeds, gpus: Sequence[Gpu]) -> bool:
    """Whether a branch is new enough for the engine and supports all GPUs."""
    if needs.driver_branch is not None and branch < needs.driver_branch:
        return False
    reaches = [driver_support(_capability(gpu)) for gpu in gpus]
    return all(reach.first <= branch <= (reach.last or branch) for reach in reaches)


def kinds_of_modules(gpus: Sequence[Gpu]) -> tuple[Modules, ...]:
    """The kinds of kernel modules that support all GPUs, the preferred one first."""
    kinds: tuple[Modules, ...] = ("open", "proprietary")
    return tuple(k for k in kinds if all(k in driver_support(_capability(g)).modules for g in gpus))


def _capability(gpu: Gpu) -> float | None:
    card = find_card(gpu.name, gpu.memory_mib)
    return gpu.compute_capability or (card.compute_capability if card else None)


def _gpu_label(gpu: Gpu) -> str:
    card = find_card(gpu.name, gpu.memory_mib)
    return f"{gpu.name} ({card.generation})" if card else gpu.name
