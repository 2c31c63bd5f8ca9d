"""What a build of an engine needs of a host: driver, cards, C library, Python, and its source."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Version = tuple[int, ...]
Device = Literal["cuda", "rocm", "cpu"]
DEVICES: tuple[Device, ...] = get_args(Device)


@dataclass(frozen=True)
class PackageIndex:
    """Where Python packages come from, and the hosts' Python that they are for; no URL is the
    public index."""

    python: str
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    wheelhouse: str | None = None


@dataclass(frozen=True)
class OlderBuild:
    """Another build of an engine that serves older cards: their least compute capability, and how
    a person calls it."""

    compute_capability: float
    name: str


@dataclass(frozen=True)
class EngineNeeds:
    """None where the engine does not care: on CPUs there is no CUDA, with ROCm no branch.

    Engines come from `package_indexes` and from `archives`, URLs or paths on the host, and take
    about `installed_gib` on disk.
    """

    name: str
    device: Device
    cuda: str | None = None
    driver_branch: int | None = None
    compute_capability: float | None = None
    glibc: Version = (2, 17)
    python: Version | None = None
    package_indexes: tuple[PackageIndex, ...] = ()
    archives: tuple[str, ...] = ()
    installed_gib: int = 12
    older_build: OlderBuild | None = None


@dataclass(frozen=True)
class CudaNeeds:
    """The least driver branch and compute capability; None where there is no CUDA."""

    driver_branch: int | None
    compute_capability: float | None


def cuda_needs(cuda: str | None, least_capability: float = 0.0) -> CudaNeeds:
    """What a program needs that is built for this version of CUDA, and for cards of no less than a
    compute capability of its own.

    Sources: NVIDIA's CUDA compatibility guide (by minor version compatibility CUDA 13 needs driver
    580, 12.x driver 525) and release notes (CUDA 12 dropped Kepler, 13 Maxwell to Volta).
    """
    if cuda is None:
        return CudaNeeds(None, None)
    thirteen = int(cuda.partition(".")[0]) >= 13
    branch, capability = (580, 7.5) if thirteen else (525, 5.0)
    return CudaNeeds(branch, max(capability, least_capability))


def strictest(needs: Sequence[EngineNeeds]) -> EngineNeeds:
    """What a host needs that runs all of these: of each requirement the highest, and all sources.

    ValueError without any.
    """
    if not needs:
        raise ValueError("a host without an engine needs nothing of one")

    def most(values: Iterable[Any], key: Callable[[Any], Any] | None = None) -> Any:
        return max((value for value in values if value is not None), key=key, default=None)

    devices: list[Device] = [one.device for one in needs]
    return EngineNeeds(
        name=" and ".join(dict.fromkeys(one.name for one in needs)),
        device=min(devices, key=DEVICES.index),
        cuda=most((one.cuda for one in needs), lambda cuda: tuple(map(int, cuda.split(".")))),
        driver_branch=most(one.driver_branch for one in needs),
        compute_capability=most(one.compute_capability for one in needs),
        glibc=max(one.glibc for one in needs),
        python=most(one.python for one in needs),
        package_indexes=tuple(dict.fromkeys(i for one in needs for i in one.package_indexes)),
        archives=tuple(dict.fromkeys(archive for one in needs for archive in one.archives)),
        installed_gib=sum(one.installed_gib for one in dict.fromkeys(needs)),
        older_build=_older_builds(needs),
    )


def _older_builds(needs: Sequence[EngineNeeds]) -> OlderBuild | None:
    """What serves older cards on a host of several engines: each one's own, or it as it is."""
    builds = [one.older_build for one in needs if one.older_build]
    as_they_are = [one.compute_capability or 0.0 for one in needs if not one.older_build]
    if not builds:
        return None
    least = max(*as_they_are, *(one.compute_capability for one in builds), 0.0)
    return OlderBuild(least, " and ".join(dict.fromkeys(one.name for one in builds)))
