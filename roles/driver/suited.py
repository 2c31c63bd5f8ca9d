"""Which branches and kernel modules suit a host's GPUs. Pure."""

from collections.abc import Iterable, Sequence

from roles.driver.branches import BRANCHES, Modules, driver_support
from roles.driver.settings import DriverSettings
from roles.engine import EngineNeeds
from roles.hardware import Gpu, find_card, is_amd_gpu


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


def best_branch(settings: DriverSettings, needs: EngineNeeds, gpus: Sequence[Gpu]) -> int | None:
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
    reaches = [driver_support(capability_of(gpu)) for gpu in gpus]
    return all(reach.first <= branch <= (reach.last or branch) for reach in reaches)


def kinds_of_modules(gpus: Sequence[Gpu]) -> tuple[Modules, ...]:
    """The kinds of kernel modules that support all GPUs, the preferred one first."""
    kinds: tuple[Modules, ...] = ("open", "proprietary")
    return tuple(
        k for k in kinds if all(k in driver_support(capability_of(g)).modules for g in gpus)
    )


def capability_of(gpu: Gpu) -> float | None:
    """A card's compute capability, as reported or by the table; None if neither knows it."""
    card = find_card(gpu.name, gpu.memory_mib)
    return gpu.compute_capability or (card.compute_capability if card else None)


def gpu_label(gpu: Gpu) -> str:
    """A card's name with its generation."""
    card = find_card(gpu.name, gpu.memory_mib)
    return f"{gpu.name} ({card.generation})" if card else gpu.name
