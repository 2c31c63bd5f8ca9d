"""The problems of a host's driver that its inventory alone shows. Pure."""

from collections.abc import Sequence

from roles.driver.branches import BRANCHES, OPEN_ONLY_FROM, branch_list, driver_support
from roles.driver.keys import own_key
from roles.driver.settings import DriverSettings
from roles.driver.suited import (
    best_branch,
    capability_of,
    gpu_label,
    is_amd,
    kinds_of_modules,
    pinned_branch,
)
from roles.engine import EngineNeeds
from roles.hardware import Gpu, is_amd_gpu


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
    for name, has in sorted({(gpu.name, capability_of(gpu)) for gpu in gpus}, key=str):
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
                "/".join(driver_support(capability_of(gpu)).modules) or "none", []
            ).append(gpu_label(gpu))
        by_kind = "; ".join(
            f"{kind}: {', '.join(dict.fromkeys(names))}" for kind, names in groups.items()
        )
        yield f"gpus: no kernel modules serve them all ({by_kind}); keep them in different hosts"
    elif setting != "auto" and gpus and setting not in kinds:
        names = [
            gpu_label(gpu)
            for gpu in gpus
            if setting not in driver_support(capability_of(gpu)).modules
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
    for gpu in {gpu_label(gpu): gpu for gpu in gpus}.values():
        reach = driver_support(capability_of(gpu))
        if reach.last is not None and branch > reach.last:
            yield (
                f"{where}: branch {branch} does not serve {gpu_label(gpu)}: {reach.last} is the "
                "last "
                "branch that does; choose it or leave the branch out"
            )
        elif branch < reach.first:
            newer = tuple(one for one in BRANCHES if one.number >= reach.first)
            yield (
                f"{where}: branch {branch} does not serve {gpu_label(gpu)}; choose one of "
                f"{branch_list(newer)}"
            )


def _no_branch(settings: DriverSettings, needs: EngineNeeds, gpus: Sequence[Gpu]):
    if (
        pinned_branch(settings) is None
        and kinds_of_modules(gpus)
        and best_branch(settings, needs, gpus) is None
    ):
        least = needs.driver_branch
        yield (
            "gpus: no maintained driver branch serves "
            f"{', '.join(dict.fromkeys(map(gpu_label, gpus)))}"
            f"{f' and is at least {least}, as {needs.name} needs' if least else ''}; there are "
            f"{branch_list()}"
        )
