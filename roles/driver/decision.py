"""Decides what to do about a host's driver, from the state that the host reports. Pure."""

import re
from dataclasses import dataclass, replace

from roles.driver.branches import BRANCHES, branch_list
from roles.driver.choice import Choice, choose, needs_fabric_manager
from roles.driver.packages import PackagePlan, is_driver, plan
from roles.driver.reboot import is_same_amdgpu, reboot_reasons
from roles.driver.settings import DriverSettings
from roles.driver.state import DriverState
from roles.driver.suited import branch_of, fits, is_amd, kinds_of_modules, pinned_branch
from roles.engine import EngineNeeds
from roles.hardware import Gpu

# Disk space for a driver and the build of its modules, with a margin: compute-only packages with
# firmware unpack to some 1.2 GB, an initramfs to some 60 MB.
NEEDED_MIB = {"/usr": 1500, "/var": 700, "/boot": 100}


@dataclass(frozen=True)
class DriverRequest:
    """The requirements for a host's driver."""

    settings: DriverSettings
    needs: EngineNeeds
    gpus: tuple[Gpu, ...]
    upgrade: bool = False

    @property
    def amd_gpus(self) -> int:
        """The number of AMD GPUs; 0 on a host with NVIDIA's."""
        return len(self.gpus) if is_amd(self.gpus) else 0


@dataclass(frozen=True)
class DriverDecision:
    """What to do about a driver: `plan` is None if nothing must be installed; `why` is the reason.

    `keep`: the driver stays, and the plan only adds a fabric manager or AMD's tool.
    """

    why: str
    choice: Choice | None = None
    plan: PackagePlan | None = None
    keep: bool = False


def decide(request: DriverRequest, state: DriverState) -> DriverDecision:
    """What to do on a host; ValueError with every reason why no driver can be installed."""
    if not request.gpus:
        return DriverDecision("the host has no GPU")
    if request.settings.install == "never":
        return DriverDecision("driver.install is never")
    if is_amd(request.gpus):
        return _decide_amd(request, state)
    usable = usable_version(request, state)
    upgrade = request.upgrade and bool(state.driver_packages)
    if usable is not None and not upgrade and not _is_unfinished(request, state, usable):
        return _keep_driver(request, state, usable, _usable_reason(state, usable))
    if state.unpackaged:
        raise ValueError(_unpackaged_message(request, state))
    chosen = _chosen(request, state)
    pinned = pinned_branch(request.settings)
    if usable is not None and pinned is None and (chosen.branch or 0) < branch_of(usable):
        why = f"driver {usable} is newer than what is known here ({branch_list()}): it stays"
        return _keep_driver(request, state, usable, why)
    return DriverDecision("", chosen, plan_of(request, state, chosen))


def usable_version(request: DriverRequest, state: DriverState) -> str | None:
    """The version of an acceptable driver that answers or only has to be loaded; None if there is
    none."""
    return state.answers if serves(request, state) else loadable_version(request, state)


def _usable_reason(state: DriverState, version: str) -> str:
    if state.answers == version:
        return f"driver {version} serves"
    if state.loaded == version:
        return f"driver {version} is loaded, and does not answer"
    return f"driver {version} is installed, and has to be loaded"


def serves(request: DriverRequest, state: DriverState) -> bool:
    """Whether the driver that answers is acceptable, so that it stays."""
    return good_enough(request.settings, request.needs, state.answers)


def works(request: DriverRequest, state: DriverState) -> bool:
    """Whether the driver, NVIDIA's or AMD's, answers and is acceptable."""
    if is_amd(request.gpus):
        return (state.amd_gpus or 0) >= len(request.gpus)
    return serves(request, state)


def good_enough(settings: DriverSettings, needs: EngineNeeds, version: str | None) -> bool:
    """Whether engine and settings accept a version of NVIDIA's driver ("580.95.05")."""
    if version is None:
        return False
    branch = branch_of(version)
    if needs.driver_branch is not None and branch < needs.driver_branch:
        return False
    if settings.version is not None:
        return version == settings.version
    return pinned_branch(settings) in (None, branch)


def loadable_version(request: DriverRequest, state: DriverState) -> str | None:
    """The version of an acceptable installed driver that only has to be loaded or asked again.

    It does not matter who installed it, or from which packages. None if there is none."""
    if any(map(is_driver, state.half)) or not state.has_nvidia_smi:
        return None
    if state.library is None and good_enough(request.settings, request.needs, state.loaded):
        # The loaded driver is acceptable but silent: a GPU may be lost.
        return state.loaded
    for kernel in (state.next_kernel, state.kernel):
        # A reboot starts the next kernel, so the running kernel's module counts only without one.
        lasts = kernel == state.next_kernel or not reboot_reasons(state)
        version = state.modules.get(kernel)
        if version is not None and lasts and version == state.library:
            kind = "open" if kernel in state.open_modules else "proprietary"
            if _is_accepted(request, version, kind) and _is_trusted(state, version):
                return version
    return None


def _is_accepted(request: DriverRequest, version: str, kind: str) -> bool:
    settings, needs, gpus = request.settings, request.needs, request.gpus
    return (
        good_enough(settings, needs, version)
        and fits(branch_of(version), needs, gpus)
        and kind in kinds_of_modules(gpus)
        and settings.kernel_modules in ("auto", kind)
    )


def _is_trusted(state: DriverState, version: str) -> bool:
    """Whether a version came from packages; one of another origin must have been loaded before."""
    if state.unpackaged:
        return state.loaded == version
    return version in state.driver_packages.values()


def _is_unfinished(request: DriverRequest, state: DriverState, version: str) -> bool:
    """Whether an installation of the chosen packages must be completed.

    An idle driver may lack modules for the next kernel. A driver that serves may be half replaced
    by an interrupted upgrade: after a reboot its module would not match its libraries.
    """
    if version in (state.answers, state.loaded) and not _is_half_replaced(state):
        return False
    try:
        return not missing_packages(plan_of(request, state, _chosen(request, state)), state)
    except ValueError:
        return False


def _is_half_replaced(state: DriverState) -> bool:
    """Whether the disk has only modules of another version than the driver that serves."""
    if state.answers is None or state.unpackaged:
        return False
    versions = {state.modules.get(kernel) for kernel in (state.kernel, state.next_kernel)}
    return versions != {None} and state.answers not in versions


def lost_module(request: DriverRequest, state: DriverState) -> str | None:
    """The version of a driver that serves although no kernel has its module any more; else None.

    An interrupted upgrade causes this: DKMS has removed the module, and nothing shows it before the
    next boot. A module that is missing only for a newly installed kernel is not our task.
    """
    if not serves(request, state) or state.unpackaged or state.container:
        return None
    kernels = (state.kernel, state.next_kernel)
    if any(map(state.modules.get, kernels)) or state.headers.isdisjoint(kernels):
        return None
    rejected = state.secure_boot and not state.own_key_enrolled
    by_dkms = {v for name, v in state.driver_packages.items() if re.search("(?<!no-)dkms", name)}
    # A half installed package is completed first; it may be of another version.
    unfinished = rejected or any(map(is_driver, state.half))
    return state.answers if state.answers in by_dkms and not unfinished else None


def _keep_driver(
    request: DriverRequest, state: DriverState, version: str, why: str
) -> DriverDecision:
    """Keep the driver, and add a fabric manager of its version if it is needed.

    A container uses the fabric manager of the machine that it runs on.
    """
    # A fabric manager that was just removed may still run; systemd then still knows its unit.
    is_current = state.fabric_manager.present and fabric_manager_version(state) == version
    needs_fabric = needs_fabric_manager(request.gpus, state.nvswitches) and not state.container
    if is_current or not needs_fabric:
        return DriverDecision(why)
    branch = branch_of(version)
    if branch not in {one.number for one in BRANCHES}:
        raise ValueError(
            f"driver: this host has NVSwitches and needs nvidia-fabricmanager {version}, and "
            f"branch {branch} is not one that is known here ({branch_list()}); install it by "
            "hand, or "
            "choose a driver.branch"
        )
    settings = request.settings.model_copy(update={"branch": branch})
    chosen = choose(
        settings, request.needs, request.gpus, state.system, nvswitches=state.nvswitches
    )
    chosen = replace(chosen, version=version)
    return DriverDecision(why, chosen, plan_of(request, state, chosen), keep=True)


def fabric_manager_version(state: DriverState) -> str | None:
    """The installed fabric manager's version, from its own output or its package."""
    packaged = [v for name, v in state.driver_packages.items() if name.startswith("nvidia-fabric")]
    return state.fabric_manager_version or next(iter(packaged), None)


def _chosen(request: DriverRequest, state: DriverState) -> Choice:
    if state.container:
        raise ValueError(_container_message(state))
    chosen = choose(
        _in_its_branch(request, state),
        request.needs,
        request.gpus,
        state.system,
        nvswitches=state.nvswitches,
        secure_boot=state.secure_boot,
        own_key_enrolled=state.own_key_enrolled,
    )
    if chosen.packaging == "precompiled" and request.settings.packaging == "auto":
        # The driver was installed with DKMS, as there was no precompiled module for this kernel.
        by_dkms = replace(chosen, packaging="dkms")
        if plan_of(request, state, by_dkms).driver[-1] in state.packages:
            return by_dkms
    return chosen


def _in_its_branch(request: DriverRequest, state: DriverState) -> DriverSettings:
    """The settings; if they name no branch, with the branch of the host's driver if that fits."""
    settings, has = request.settings, state.answers or state.loaded or state.module
    if has is None or is_amd(request.gpus) or pinned_branch(settings) is not None:
        return settings
    branch = branch_of(has)
    known = branch in {one.number for one in BRANCHES}
    if not known or not fits(branch, request.needs, request.gpus):
        return settings
    return settings.model_copy(update={"branch": branch})


def plan_of(request: DriverRequest, state: DriverState, chosen: Choice) -> PackagePlan:
    """The packages of a choice on a host."""
    settings = request.settings
    own_key = settings.mirror_key_file is not None
    kinds = state.kinds_of_kernel
    return plan(chosen, state.system, state.kernel, settings.mirror, own_key, kinds)


def _decide_amd(request: DriverRequest, state: DriverState) -> DriverDecision:
    """Decide for AMD: the kernel's own amdgpu is enough if it offers the GPUs and a tool lists
    them."""
    upgrade = request.upgrade and "amdgpu-dkms" in state.packages
    if works(request, state) and not upgrade:
        return DriverDecision(f"amd-smi lists {state.amd_gpus} GPUs")
    if "amdgpu" in state.in_kernel and state.kfd_gpus >= len(request.gpus) and not upgrade:
        return _amd_tool(request, state)
    chosen = _chosen(request, state)
    return DriverDecision("", chosen, plan_of(request, state, chosen))


def _amd_tool(request: DriverRequest, state: DriverState) -> DriverDecision:
    """Keep the amdgpu driver, and add amd-smi if no tool can list its GPUs."""
    why = f"amdgpu offers {state.kfd_gpus} GPUs"
    if state.has_rocm_smi:
        return DriverDecision(why)
    # It has no module, so Secure Boot does not matter.
    chosen = choose(request.settings, request.needs, request.gpus, state.system)
    whole = plan_of(request, state, chosen)
    tool = replace(whole, driver=(), headers=(), kernel=(), dkms=False, epel=False)
    tool = replace(tool, extra=("amd-smi-lib",))
    return DriverDecision(why, chosen, tool, keep=True)


def _container_message(state: DriverState) -> str:
    return (
        f"driver: this host is a container ({state.container}), which has its kernel and its "
        "driver from the machine that it runs on; install the driver there"
    )


def _unpackaged_message(request: DriverRequest, state: DriverState) -> str:
    has = state.answers or state.module
    return (
        f"driver: {has or 'of an unknown version'} was installed outside of packages (NVIDIA's "
        f".run installer or by hand) and is {_why_not_good(request, state, has)}; packages must "
        "not be installed over it. Remove it with nvidia-uninstall, reboot, and deploy again"
    )


def _why_not_good(request: DriverRequest, state: DriverState, version: str | None) -> str:
    least = request.needs.driver_branch
    if least and version and branch_of(version) < least:
        return f"older than {request.needs.name} needs ({least})"
    good = works(request, state) or good_enough(request.settings, request.needs, version)
    if good and request.upgrade:
        return "not the newest, which upgrade_driver asks for"
    return "not the one that the settings ask for, or does not answer"


def in_use_problem(
    request: DriverRequest, state: DriverState, decision: DriverDecision
) -> str | None:
    """Why the driver must not be replaced while replicas run; None if it may be.

    A loaded module stays until a reboot, and does not work with libraries of another version.
    """
    module = "amdgpu" if is_amd(request.gpus) else "nvidia"
    loaded = module in state.in_kernel or state.loaded or state.answers
    if decision.plan is None or decision.keep or not loaded or not state.replicas:
        return None
    if request.settings.reboot == "when-needed":
        return None
    has, units = state.answers or state.loaded, " ".join(state.replicas)
    why = f"is {_why_not_good(request, state, has)}"
    if works(request, state) and not request.upgrade:
        why = f"serves, and its module on the disk is {state.module}"
    return (
        f"driver: {has or module} is loaded and {why}; another one serves only "
        f"after a reboot, and replicas run here ({units}), so nothing was changed. "
        'Allow the reboot with driver.reboot: "when-needed", or drain this host and stop them '
        f"(systemctl stop {units}), and deploy again"
    )


def missing_packages(plan: PackagePlan, state: DriverState) -> list[str]:
    """The packages of a plan that the host lacks."""
    return [name for name in (*plan.versioned, *plan.extra) if name not in state.packages]


def is_settled(chosen: Choice, plan: PackagePlan, state: DriverState) -> bool:
    """Whether all packages of a plan are installed in one accepted version, with a module to
    load."""
    if state.interrupted or missing_packages(plan, state):
        return False
    if chosen.vendor == "amd":
        # The loaded driver is from these packages but drives too few cards.
        return not is_same_amdgpu(state)
    versions = {state.driver_packages[name] for name in plan.versioned if name in state.packages}
    if len(versions) != 1 or not chosen.accepts(next(iter(versions))):
        return False
    if state.modules.get(state.next_kernel) in versions:
        return True
    # Without its headers no module can be built for a kernel.
    return state.modules.get(state.kernel) in versions and state.next_kernel not in state.headers


def disk_space_problem(state: DriverState) -> str | None:
    """Why the disk has no room for a driver; None if it has."""
    needed: dict[str, int] = {}
    paths: dict[str, list[str]] = {}
    for path, (mount, _) in state.free_mib.items():
        needed[mount] = needed.get(mount, 0) + NEEDED_MIB[path]
        paths.setdefault(mount, []).append(path)
    for mount, mib in needed.items():
        free = min(state.free_mib[path][1] for path in paths[mount])
        if free < mib:
            return (
                f"driver: {free} MiB are free on {mount} ({', '.join(paths[mount])}), and the "
                f"driver needs {mib}; make room (apt-get clean, old kernels, logs) and deploy again"
            )
    return None
