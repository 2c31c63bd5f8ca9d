"""The requirements of a vLLM build: driver, cards, C library and Python. Pure.

Sources: vLLM's pull request 39878 (from 0.20 on plain wheels are built for CUDA 13.0, "+cu129" for
12.9), wheel metadata of 0.33.0.
"""

from roles.engine.needs import EngineNeeds, OlderBuild, cuda_needs
from roles.engine.vllm.settings import VllmSettings
from roles.engine.vllm.support import MIN_CAPABILITY_OF_ANY_BUILD, OLDER_BUILD

# No wheel has kernels for cards older than Volta.
_MIN_CAPABILITY = MIN_CAPABILITY_OF_ANY_BUILD
_OLDER = OlderBuild(_MIN_CAPABILITY, OLDER_BUILD)
# Estimates: torch, CUDA's libraries and vLLM took 8-10 GiB with wheels of 2026, ROCm's twice that.
_INSTALLED_GIB = {"cuda": 12, "rocm": 24, "cpu": 3}


def needs(settings: VllmSettings) -> EngineNeeds:
    """The requirements of the build of these settings."""
    package, _, version = settings.requirement.partition("==")
    numbers = settings.numbers
    built_for = settings.cuda_of_wheels or ("13.0" if numbers >= (0, 20) else "12.8")
    cuda = built_for if settings.device == "cuda" else None
    of_cuda = cuda_needs(cuda, _MIN_CAPABILITY)
    return EngineNeeds(
        name=f"{package.partition('[')[0]} {version}",
        device=settings.device,
        cuda=cuda,
        driver_branch=of_cuda.driver_branch,
        compute_capability=of_cuda.compute_capability,
        glibc=(2, 28) if numbers >= (0, 10) else (2, 17),
        python=settings.least_python,
        package_indexes=(settings.package_index,),
        installed_gib=_INSTALLED_GIB[settings.device],
        older_build=_OLDER if cuda else None,
    )
