"""What an inventory may say about vLLM: which build, and where it is installed from."""

import hashlib
import re
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints, field_validator

from roles.engine.build import Build, Source

Requirement = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z0-9,._-]+\])?==[A-Za-z0-9.+!]+$"),
]

# What vLLM needs of the distribution: Triton and inductor compile at run time.
COMPILER = ("gcc", "g++", "python3-dev")

MODELSCOPE = "https://www.modelscope.cn"
PLANNED = {
    "VLLM_PORT": "launch.internal_ports_from",
    "VLLM_HOST_IP": "the plan",
    "VLLM_API_KEY": "engine_key_file",
}


class VllmSettings(Build):
    """Which vLLM hosts run, on what device, and how it gets there."""

    kind: ClassVar[str] = "vllm"

    requirement: Requirement = Field(
        default="vllm==0.33.0", description="the engine's package and exact version"
    )
    lock: Path | None = Field(
        default=None,
        description="file here with every package's exact version (pip's format); installed as it "
        "is, with no dependency added",
    )
    index_url: Source | None = Field(
        default=None, description="package index instead of the public one, without credentials"
    )
    extra_index_urls: tuple[Source, ...] = Field(
        default=(), description="more package indexes, for instance the one with ROCm builds"
    )
    wheelhouse: Source | None = Field(
        default=None,
        description="folder on the hosts or URL with all wheels; then no index is asked, for hosts "
        "without internet",
    )
    python: Annotated[str, StringConstraints(pattern=r"^python3(\.\d+)?$")] = Field(
        default="python3", description="the hosts' Python that the engine runs on"
    )
    uv: Requirement = Field(default="uv==0.13.8", description="the installer's package and version")

    @field_validator("lock")
    @classmethod
    def _lock_is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{value} is not there; create it or leave the setting out")
        return value

    @classmethod
    def planned(cls) -> dict[str, str]:
        """Environment variables that are not for an inventory to set, and what decides them."""
        return super().planned() | PLANNED

    @property
    def hub(self) -> str | None:
        """The hub, which may be ModelScope."""
        found = super().hub
        return MODELSCOPE if found and self.is_on("VLLM_USE_MODELSCOPE") else found

    @property
    def version_name(self) -> str:
        """Name of the folder that this engine is installed in: what, and a digest of from what."""
        lock = self.lock.read_text() if self.lock else ""
        # The index decides which build comes under a version; a mirror of wheels does not.
        sources = (self.index_url, *self.extra_index_urls)
        what = f"{self.requirement}\n{self.python}\n{sources}\n{lock}"
        digest = hashlib.sha256(what.encode()).hexdigest()
        package, version = re.sub(r"\[.*\]", "", self.requirement).split("==")
        return f"{package}-{version}-{self.device}-{digest[:8]}"

    @property
    def system_packages(self) -> tuple[str, ...]:
        """Packages of the distribution that hosts must have before the engine is installed."""
        needed = (*COMPILER, "libnuma1") if self.packages is None else self.packages
        return (*needed, "python3-venv", "nftables", "iproute2")
