"""The requirements of an engine's build: driver, cards, C library, Python and its sources."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Version = tuple[int, ...]
Device = Literal["cuda", "rocm", "cpu"]
DEVICES: tuple[Device, ...] = get_args(Device)


@dataclass(frozen=True)
class PackageIndex:
    """The source of Python packages, and the hosts' Python that they are for.

    Without a URL it is the public index."""

    python: str
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    wheelhouse: str | None = None


@dataclass(frozen=True)
class OlderBuild:
    """Another build of an engine, for older cards: its minimum compute capability and its name for
    people."""

    compute_capability: float
    name: str


@dataclass(frozen=True)
class EngineNeeds:
    """The requirements of a build; None means no requirement, such as CUDA on CPUs.

    Engines are installed from `package_indexes` and from `archives` (URLs or paths on the host),
    and take about `installed_gib` on disk. With a C library older than `built_below` one is built
    on the host from its source.
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
    built_below: Version | None = None
    older_build: OlderBuild | None = None


@dataclass(frozen=True)
class CudaNeeds:
    """The minimum driver branch and compute capability; None without CUDA."""

    driver_branch: int | None
    compute_capability: float | None


def cuda_needs(cuda: str | None, least_capability: float = 0.0) -> CudaNeeds:
    """The requirements of a program for a version of CUDA; `least_capability` is the program's own
    minimum.

    Sources: NVIDIA's CUDA compatibility guide (by minor version compatibility CUDA 13 needs driver
    580, 12.x driver 525) and release notes (CUDA 12 dropped Kepler, 13 Maxwell to Volta).
    """
    if cuda is None:
        return CudaNeeds(None, None)
    thirteen = int(cuda.partition(".")[0]) >= 13
    branch, capability = (580, 7.5) if thirteen else (525, 5.0)
    return CudaNeeds(branch, max(capability, least_capability))


def strictest(needs: Sequence[EngineNeeds]) -> EngineNeeds:
    """The combined requirements of a host: the highest of each, and all sources.

    ValueError for an empty list.
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
        built_below=most(one.built_below for one in needs),
        older_build=_older_builds(needs),
    )


def _older_builds(needs: Sequence[EngineNeeds]) -> OlderBuild | None:
    """The older build for a host of several engines: each engine's own, or its usual one."""
    builds = [one.older_build for one in needs if one.older_build]
    as_they_are = [one.compute_capability or 0.0 for one in needs if not one.older_build]
    if not builds:
        return None
    least = max(*as_they_are, *(one.compute_capability for one in builds), 0.0)
    return OlderBuild(least, " and ".join(dict.fromkeys(one.name for one in builds)))
