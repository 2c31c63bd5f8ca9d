"""The requirements of a vLLM build: driver, cards, C library and Python. Pure.

Sources: vLLM's pull request 39878 (from 0.20 on plain wheels are built for CUDA 13.0, "+cu129" for
12.9), wheel metadata of 0.33.0.
"""

import re

from roles.engine.needs import EngineNeeds, OlderBuild, PackageIndex, Version, cuda_needs
from roles.engine.vllm.settings import VllmSettings, least_python

# No wheel has kernels for cards older than Volta.
_MIN_CAPABILITY = 7.0
_OLDER = OlderBuild(_MIN_CAPABILITY, "vLLM 0.32 as +cu129, or 0.19")
# Estimates: torch, CUDA's libraries and vLLM took 8-10 GiB with wheels of 2026, ROCm's twice that.
_INSTALLED_GIB = {"cuda": 12, "rocm": 24, "cpu": 3}


def needs(settings: VllmSettings) -> EngineNeeds:
    """The requirements of the build of these settings."""
    package, _, version = settings.requirement.partition("==")
    numbers = settings.numbers
    cuda = _cuda(settings, version, numbers) if settings.device == "cuda" else None
    of_cuda = cuda_needs(cuda, _MIN_CAPABILITY)
    return EngineNeeds(
        name=f"{package.partition('[')[0]} {version}",
        device=settings.device,
        cuda=cuda,
        driver_branch=of_cuda.driver_branch,
        compute_capability=of_cuda.compute_capability,
        glibc=(2, 28) if numbers >= (0, 10) else (2, 17),
        python=least_python(numbers),
        package_indexes=(
            PackageIndex(
                settings.python, settings.index_url, settings.extra_index_urls, settings.wheelhouse
            ),
        ),
        installed_gib=_INSTALLED_GIB[settings.device],
        older_build=_OLDER if cuda else None,
    )


def _cuda(settings: VllmSettings, version: str, numbers: Version) -> str:
    """The CUDA version of the wheel, from its version or its index."""
    named = re.search(r"cu(1[0-9])([0-9])\b", " ".join((version, *_indexes(settings))))
    if named:
        return f"{named[1]}.{named[2]}"
    return "13.0" if numbers >= (0, 20) else "12.8"


def _indexes(settings: VllmSettings) -> list[str]:
    return [url for url in (settings.index_url, *settings.extra_index_urls) if url]
