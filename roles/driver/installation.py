"""Chooses the versions of packages to install, from those that the repositories offer. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from roles.driver.choice import Choice
from roles.driver.decision import (
    DriverDecision,
    DriverRequest,
    is_settled,
    missing_packages,
    plan_of,
    usable_version,
)
from roles.driver.packages import PackagePlan, is_driver, is_of_one_kernel, numbers, upstream
from roles.driver.state import DriverState
from roles.driver.system import OperatingSystem

Available = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class DriverInstallation:
    """What one run of the package manager does.

    `version` is NVIDIA's, None if no module is installed. `whole` maps a package to its full
    version. `release` are held packages that may change now. `upgraded` packages go to their newest
    version. `restarted` is a unit that runs the old version. `amdgpu` is the version that replaces
    an older amdgpu.
    """

    plan: PackagePlan
    system: OperatingSystem
    whole: tuple[tuple[str, str], ...]
    extra: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    upgraded: tuple[str, ...] = ()
    version: str | None = None
    restarted: str | None = None
    amdgpu: str | None = None


def needed_packages(
    request: DriverRequest, decision: DriverDecision, state: DriverState
) -> list[str]:
    """The packages whose available versions must be known."""
    plan = decision.plan
    assert plan is not None and decision.choice is not None
    names = [*plan.versioned, *plan.extra, *plan.headers, *_next_headers(plan, state)]
    names += kernel_packages_of(plan, state)
    if decision.choice.packaging == "precompiled":
        instead = plan_of(request, state, replace(decision.choice, packaging="dkms"))
        names += [*instead.versioned, *instead.extra, *instead.headers]
    return list(dict.fromkeys(names))


def installation(
    request: DriverRequest, decision: DriverDecision, state: DriverState, available: Available
) -> DriverInstallation | None:
    """What to install; None if an upgrade finds nothing newer.

    ValueError, with what is available, if the repositories lack what is needed.
    """
    plan, chosen = decision.plan, decision.choice
    assert plan is not None and chosen is not None
    if chosen.vendor == "amd":
        return _amd(plan, state, available)
    if decision.keep:
        return _fabric_manager_installation(chosen, plan, state, available)
    newer = _newer_kernel(plan, state, available) if request.upgrade else []
    signed = _signed(plan, newer)
    if absent := [n for n in signed if n not in state.packages and not available.get(n)]:
        decision = by_dkms(request, decision, state, ", ".join(absent))
        return installation(request, decision, state, available)
    version = target_version(chosen, plan.versioned, plan, state, available, request.upgrade)
    whole = _whole(plan.versioned, version, available)
    if request.upgrade:
        newest = [*whole, *((name, available[name][0]) for name in signed if available.get(name))]
        is_newest = all(state.packages.get(name) == full for name, full in newest)
        settled = is_newest and not newer and is_settled(chosen, plan, state)
        if settled or _is_downgrade(request, chosen, version, state):
            return None
    headers = (*_headers(plan, state, available), *_more_headers(plan, state, available, newer))
    extra = [
        name
        for name in missing_packages(plan, state)
        if name in plan.extra and not _is_signed(name)
    ]
    return DriverInstallation(
        plan=plan,
        system=state.system,
        whole=whole,
        extra=(*(n for n in signed if request.upgrade or n not in state.packages), *extra),
        headers=headers,
        release=_release(state, (*newer, *headers)),
        upgraded=tuple(newer),
        version=version,
    )


def by_dkms(
    request: DriverRequest, decision: DriverDecision, state: DriverState, why: str
) -> DriverDecision:
    """The decision with modules that are built on the host instead of signed ones.

    `why`: the reason why signed ones are not available. ValueError if modules must be signed, or if
    signed ones are installed already.
    """
    plan, chosen = decision.plan, decision.choice
    assert plan is not None and chosen is not None
    rejected = state.secure_boot and not state.own_key_enrolled
    has = any(_is_signed(name) and name in state.packages for name in plan.extra)
    if request.settings.packaging == "precompiled" or rejected or has:
        raise ValueError(
            f"driver: the distribution has no signed modules for kernel {state.kernel} that go "
            f"with its driver ({why}); upgrade the kernel (apt-get install "
            f"{' '.join(kernel_packages_of(plan, state))}), reboot, and deploy again"
        )
    built = replace(chosen, packaging="dkms")
    return replace(decision, choice=built, plan=plan_of(request, state, built))


def _signed(plan: PackagePlan, newer: Sequence[str]) -> list[str]:
    """The packages of signed modules; with a newer kernel without those of the running one."""
    signed = filter(_is_signed, plan.extra)
    return [name for name in signed if not (newer and is_of_one_kernel(name))]


def _is_signed(name: str) -> bool:
    return name.startswith("linux-modules-nvidia-")


def _more_headers(
    plan: PackagePlan, state: DriverState, available: Available, newer: Sequence[str]
) -> tuple[str, ...]:
    """Headers for a newer kernel, so that DKMS builds its module, too."""
    if not plan.dkms or not newer:
        return ()
    names = filter(_is_headers, kernel_packages_of(plan, state))
    return tuple(name for name in names if name not in state.packages and available.get(name))


def _is_downgrade(request: DriverRequest, chosen: Choice, version: str, state: DriverState) -> bool:
    """Whether an upgrade would install an older driver although no version is pinned."""
    installed = usable_version(request, state)
    if chosen.version is not None or installed is None:
        return False
    return numbers(version) < numbers(installed)


def _fabric_manager_installation(
    chosen: Choice, plan: PackagePlan, state: DriverState, available: Available
) -> DriverInstallation:
    """Install only the fabric manager of a driver that stays."""
    version = target_version(chosen, plan.fabric, plan, state, available)
    absent = [n for n in plan.extra if n not in state.packages and not _is_module(n)]
    # It would not start while another driver is loaded.
    now = chosen.version in (state.answers, state.loaded)
    return DriverInstallation(
        plan=replace(plan, stream=None, epel=False),
        system=state.system,
        whole=_whole(plan.fabric, version, available),
        extra=tuple(absent) if chosen.nvlsm else (),
        release=tuple(name for name in plan.fabric if name in state.held),
        restarted="nvidia-fabricmanager" if state.fabric_manager.active and now else None,
    )


def _is_module(name: str) -> bool:
    # All other packages belong to the fabric manager.
    return name == "dkms" or _is_signed(name)


def target_version(
    chosen: Choice,
    names: Sequence[str],
    plan: PackagePlan,
    state: DriverState,
    available: Available,
    upgrade: bool = False,
) -> str:
    """The version of NVIDIA's packages to install; ValueError, with what is available, if none
    fits.

    This is the newest version that all packages are available in. Without an upgrade the newest
    installed version is kept, so that an interrupted installation is completed.
    """
    offered = {name: {upstream(v) for v in available.get(name, ())} for name in names}
    installed = {state.driver_packages[name] for name in names if name in state.packages}
    common = set.intersection(*offered.values()) if offered else set()
    fitting = sorted(filter(chosen.accepts, common), key=numbers)
    if not upgrade and installed:
        newest = max(installed, key=numbers)
        if newest in fitting:
            return newest
    if fitting:
        return fitting[-1]
    raise ValueError(_no_version_message(chosen, plan, offered))


def _no_version_message(chosen: Choice, plan: PackagePlan, offered: Mapping[str, set[str]]) -> str:
    needed = chosen.version or f"of branch {chosen.branch}"
    where = "driver.version" if chosen.version else "driver.branch"
    url = plan.repository.url if plan.repository else "the distribution's repository"
    offers = "; ".join(
        f"{name}: {', '.join(sorted(versions, key=numbers)) or 'none'}"
        for name, versions in offered.items()
    )
    return (
        f"{where}: {url} has no version {needed} of all packages of the driver; it has {offers}. "
        "Choose one of these, or another driver.source or driver.mirror"
    )


def _whole(names: Sequence[str], version: str, available: Available) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, next(full for full in available[name] if upstream(full) == version))
        for name in names
    )


def kernel_packages_of(plan: PackagePlan, state: DriverState) -> tuple[str, ...]:
    """The packages that bring the newest kernel: the installed ones, else those of its kind."""
    kinds = state.kinds_of_kernel
    if not kinds:
        return plan.kernel
    return tuple(f"linux-{what}-{kind}" for kind in kinds for what in ("image", "headers"))


def _newer_kernel(plan: PackagePlan, state: DriverState, available: Available) -> list[str]:
    return [
        name
        for name in kernel_packages_of(plan, state)
        if name in state.packages
        and available.get(name)
        and available[name][0] != state.packages[name]
    ]


def _headers(plan: PackagePlan, state: DriverState, available: Available) -> tuple[str, ...]:
    """The packages that modules are built with: the running kernel's headers, if available.

    Repositories drop headers of older kernels. Then the newest kernel is installed with its
    headers, and the host needs a reboot.
    """
    if not plan.dkms:
        return ()
    next_headers = _next_headers(plan, state)
    available_next = tuple(name for name in next_headers if available.get(name))
    newest = tuple(name for name in kernel_packages_of(plan, state) if available.get(name))
    if next_headers and not available_next and state.answers is not None:
        # The reboot that another driver needs must not stop a driver that serves.
        if any(map(_is_headers, newest)):
            return newest
        raise ValueError(
            f"driver: kernel {state.next_kernel} boots next, and no repository of this host has "
            f"{' '.join(next_headers)}, which DKMS builds its module with, nor a newer kernel "
            "with its "
            "headers: after the reboot that another driver needs there would be none. Provide "
            "them, or remove that kernel, and deploy again"
        )
    if state.kernel in state.headers:
        other_packages = (n for n in plan.headers if not _is_headers(n) and n not in state.packages)
        return (*filter(available.get, other_packages), *available_next)
    if all(available.get(name) or name in state.packages for name in plan.headers):
        return (*(name for name in plan.headers if name not in state.packages), *available_next)
    if not any(map(_is_headers, newest)):
        raise ValueError(
            f"driver: no repository of this host has {' '.join(plan.headers)}, which DKMS builds "
            "the module with, nor a newer kernel with its headers; upgrade the host's kernel, "
            "reboot, and deploy again"
        )
    return newest


def _next_headers(plan: PackagePlan, state: DriverState) -> tuple[str, ...]:
    """The missing headers of the next kernel, if that differs from the running one."""
    if state.next_kernel == state.kernel or state.next_kernel in state.headers:
        return ()
    return tuple(name.replace(state.kernel, state.next_kernel) for name in plan.headers)


def _is_headers(name: str) -> bool:
    return "headers" in name or "devel" in name


def _release(state: DriverState, more: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in state.held if is_driver(name) or name in more))


def _amd(plan: PackagePlan, state: DriverState, available: Available) -> DriverInstallation | None:
    names = [*plan.driver, *plan.extra]
    absent = [name for name in names if not available.get(name)]
    if absent:
        url = plan.repository.url if plan.repository else ""
        raise ValueError(f"driver: {url} has no {', '.join(absent)}; check driver.mirror")
    offered = ((name, available[name][0]) for name in names)
    # Never downgrade: the host may have newer packages from another repository.
    whole = tuple(
        (name, full)
        for name, full in offered
        if numbers(full) > numbers(state.packages.get(name, ""))
    )
    if not whole:
        return None
    amdgpu = dict(whole).get("amdgpu-dkms") if "amdgpu-dkms" in state.packages else None
    headers = _headers(plan, state, available)
    release = _release(state, ())
    return DriverInstallation(plan, state.system, whole, (), headers, release, amdgpu=amdgpu)


def to_hold(state: DriverState) -> list[str]:
    """Installed packages that may only change together: the driver's and the kernel's."""
    driver = [name for name in state.driver_packages if name != "nvlsm"]
    if not driver:
        return []
    kernel = [name for name in state.packages if _is_kernel(name, state)]
    return sorted({*driver, *kernel})


def _is_kernel(name: str, state: DriverState) -> bool:
    """Whether a package is the running kernel's, or brings a newer kernel."""
    if not state.system.uses_apt:
        return name in ("kernel", "kernel-core", "kernel-modules", "kernel-modules-core") or (
            name.startswith("kernel-devel")
        )
    if not name.startswith(("linux-image-", "linux-headers-", "linux-modules-")):
        return False
    return not is_of_one_kernel(name) or state.kernel in name or state.next_kernel in name
