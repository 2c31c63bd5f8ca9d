"""The settings of engines that are Python packages: the build, and where it is installed from."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from roles.engine.build import Build, Source
from roles.engine.lock import device_problem, lock_remedy, problem_of, shipped
from roles.engine.needs import PackageIndex, Version
from roles.host import LocalFile, Several, check_address, check_host_name, read_text

REQUIREMENT = r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z0-9,._-]+\])?==[0-9][A-Za-z0-9.+!]*$"
Requirement = Annotated[str, StringConstraints(pattern=REQUIREMENT, max_length=200)]
# A version as packages have it (PEP 440), of two numbers or more.
_VERSION = re.compile(
    r"\d+(\.\d+)+((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[A-Za-z0-9]+(\.[A-Za-z0-9]+)*)?"
)
# A line of a lock: a package and its exact version.
_LOCKED = re.compile(r"(?m)^ *([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])? *== *([^ ;\\\s]+)")

# Distribution packages for Triton and inductor, which compile at run time.
COMPILER = ("gcc", "g++", "python3-dev")


def package_of(requirement: str) -> str:
    """The package of a requirement, without its extras."""
    return re.split(r"[\[=]", requirement, maxsplit=1)[0]


def _with_version(requirement: str) -> str:
    version = requirement.partition("==")[2]
    if not _VERSION.fullmatch(version):
        raise ValueError(f"{requirement}: {version} is no version of a package; write all of it")
    return requirement


def _check_host(name: str) -> str:
    try:
        return str(check_address(name)) if ":" in name else check_host_name(name).lower()
    except ValueError:
        raise ValueError(
            f"{name!r:.60} is no host; write a name or an address alone, without scheme, brackets, "
            "port or mask"
        ) from None


# A host as the URLs of packages have it.
IndexHost = Annotated[str, AfterValidator(_check_host)]


def _normalized(package: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


@lru_cache(maxsize=64)
def _digest(requirement: str, python: str, sources: tuple[str | None, ...], lock: str) -> str:
    what = f"{requirement}\n{python}\n{sources}\n{lock}"
    return hashlib.sha256(what.encode()).hexdigest()


class PackagesBuild(Build):
    """An engine from Python packages, in a virtual environment of its own.

    `engine_name` is its name for people, `packages_pattern` finds the names of its packages, and
    `locks` is the folder of the shipped locks.
    """

    engine_name: ClassVar[str]
    packages_pattern: ClassVar[str]
    locks: ClassVar[Path]

    requirement: Requirement = Field(description="the engine's package and exact version")
    uv: Requirement = Field(default="uv==0.13.8", description="the installer's package and version")
    allow_unhashed: bool = Field(
        default=False,
        description="install without a lock, or by one without hashes: whatever the index or the "
        "wheelhouse has under these names then runs as root",
    )
    lock: LocalFile | None = Field(
        default=None,
        description="file here with every package's exact version and hashes (pip's format), as "
        "`python -m roles.engine lock` prints it; installed as it is, with no dependency added; "
        "for the usual requirement there is one",
    )
    allow_http_from: Several[IndexHost] = Field(
        default=(),
        description="hosts from which packages may come over plain http, which anybody on the way "
        "can change",
    )
    index_url: Source | None = Field(
        default=None, description="package index instead of the public one, without credentials"
    )
    extra_index_urls: Several[Source] = Field(
        default=(), description="more package indexes, for instance the one with ROCm builds"
    )
    wheelhouse: Source | None = Field(
        default=None,
        description="folder on the hosts or URL with all wheels; then no index is asked, for hosts "
        "without internet",
    )
    python: Annotated[str, StringConstraints(pattern=r"^python3(\.\d{1,2})?$")] = Field(
        default="python3", description="the hosts' Python that the engine runs on"
    )

    @field_validator("requirement")
    @classmethod
    def _is_of_the_engine(cls, value: str) -> str:
        if not cls.owns(value):
            example = cls.model_fields["requirement"].default
            raise ValueError(
                f"{value} is another package than {cls.engine_name}; write it as in {example}"
            )
        return _with_version(value)

    @classmethod
    def owns(cls, requirement: str) -> bool:
        """Whether a requirement is of a package of this engine."""
        return bool(re.fullmatch(cls.packages_pattern, package_of(requirement)))

    @field_validator("uv")
    @classmethod
    def _is_uv(cls, value: str) -> str:
        if package_of(value) != "uv":
            raise ValueError(f"{value} is another package than uv; write it as in uv==0.13.8")
        return _with_version(value)

    @field_validator("lock")
    @classmethod
    def _lock_has_hashes(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None:
            return None
        text, uv = read_text(value), str(info.data.get("uv"))
        device = info.data.get("device", "cuda")
        problem = "" if info.data.get("allow_unhashed") else problem_of(text, uv)
        problem = problem or device_problem(text, device)
        if problem:
            again = lock_remedy(str(info.data.get("requirement")), uv, device)
            raise ValueError(f"{value}: {problem}; create it again: {again}")
        return value

    @field_validator("index_url", "extra_index_urls", "wheelhouse")
    @classmethod
    def _check_transport(
        cls, value: str | tuple[str, ...] | None, info: ValidationInfo
    ) -> str | tuple[str, ...] | None:
        for url in (value,) if isinstance(value, str) else value or ():
            host = _check_host(urlsplit(url).hostname or "") if url.startswith("http://") else None
            if host is not None and host not in info.data.get("allow_http_from", (host,)):
                raise ValueError(
                    f"{url} can be changed on its way; use https, or name {host} in allow_http_from"
                )
        return value

    @model_validator(mode="after")
    def _check_python(self) -> Self:
        minor = self.python.partition(".")[2]
        if not minor:
            return self
        version, least, before = (3, int(minor)), self.least_python, self.before_python
        after = before is not None and version >= before
        if version < least or after:
            known = f" and before {before[0]}.{before[1]}" if before and after else ""
            raise ValueError(
                f"python: {self.requirement} does not run on {self.python}; set one from "
                f"python{least[0]}.{least[1]} on{known}"
            )
        return self

    @property
    def least_python(self) -> Version:
        """The oldest Python that this version runs on."""
        raise NotImplementedError

    @property
    def before_python(self) -> Version | None:
        """The first Python that this version does not run on any more; None where none is known."""
        return None

    @model_validator(mode="after")
    def _lock_is_of_the_requirement(self) -> Self:
        if self.lock is None:
            return self
        locked = {_normalized(name): version for name, version in _LOCKED.findall(self.lock_text)}
        package, version = package_of(self.requirement), self.requirement.partition("==")[2]
        found = locked.get(_normalized(package))
        if found != version:
            has = f"{package}=={found}" if found else f"no {package}"
            raise ValueError(
                f"lock: {self.lock} has {has}, the requirement is {self.requirement}; make the "
                "lock again, or correct the requirement"
            )
        return self

    @property
    def numbers(self) -> Version:
        """The numbers of the engine's version: (0, 33, 0)."""
        version = self.requirement.partition("==")[2]
        return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3]))

    def locks_package(self, package: str) -> bool:
        """Whether its packages have one of this name; without a lock nobody knows."""
        names = {_normalized(name) for name, _ in _LOCKED.findall(self.lock_text)}
        return not names or _normalized(package) in names

    @property
    def lock_text(self) -> str:
        """The lock that is installed, the shipped one where none is said; "" for none."""
        if self.lock:
            return read_text(self.lock)
        if self.allow_unhashed:
            return ""
        return shipped(self.locks, self.requirement, self.uv, self.device)

    @property
    def missing(self) -> tuple[str, str] | None:
        """The lock, until there is one or the inventory does without it."""
        if self.lock_text or self.allow_unhashed:
            return None
        remedy = lock_remedy(self.requirement, self.uv, self.device)
        return "lock", (
            f"is missing; make it: {remedy}; or set allow_unhashed, to install whatever is there"
        )

    @property
    def version_name(self) -> str:
        """The folder name of this build: its version, and a digest of its sources."""
        # The index determines the build of a version; a mirror of wheels does not.
        sources = (self.index_url, *self.extra_index_urls)
        digest = _digest(self.requirement, self.python, sources, self.lock_text)
        package, version = re.sub(r"\[.*\]", "", self.requirement).split("==")
        return f"{package}-{version}-{self.device}-{digest[:8]}"

    @property
    def system_packages(self) -> tuple[str, ...]:
        """The distribution's packages that hosts need before the engine is installed."""
        needed = (*COMPILER, "libnuma1") if self.packages is None else self.packages
        return (*needed, "python3-venv", "nftables", "iproute2")

    @property
    def package_index(self) -> PackageIndex:
        """The source of the packages."""
        return PackageIndex(self.python, self.index_url, self.extra_index_urls, self.wheelhouse)

    @property
    def cuda_of_wheels(self) -> str | None:
        """The CUDA version that the requirement or an index names: "12.9" by +cu129."""
        indexes = (url for url in (self.index_url, *self.extra_index_urls) if url)
        version = self.requirement.partition("==")[2]
        named = re.search(r"cu(1[0-9])([0-9])\b", " ".join((version, *indexes)))
        return f"{named[1]}.{named[2]}" if named else None
