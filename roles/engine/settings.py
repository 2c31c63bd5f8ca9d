"""What an inventory may say about the engine: which build, and where it is installed from."""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

Requirement = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z0-9,._-]+\])?==[A-Za-z0-9.+!]+$"),
]
Source = Annotated[str, StringConstraints(pattern=r"^(https?://|/)[A-Za-z0-9._~:/\[\]@+=%-]+$")]
Package = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]+$")]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]*$")]

# What vLLM needs of the distribution: Triton and inductor compile at run time.
COMPILER = ("gcc", "g++", "python3-dev")

PLANNED = {
    "CUDA_VISIBLE_DEVICES": "the plan",
    "HIP_VISIBLE_DEVICES": "the plan",
    "CUDA_DEVICE_ORDER": "the plan",
    "VLLM_PORT": "launch.internal_ports_from",
    "VLLM_HOST_IP": "the plan",
    "VLLM_API_KEY": "balancer.engine_key_file",
    "HF_TOKEN": "engine.hub_token_file",
    "HUGGING_FACE_HUB_TOKEN": "engine.hub_token_file",
    "HOME": "launch",
    "PATH": "launch",
}


class EngineSettings(BaseModel):
    """Which engine hosts run, on what device, and how it gets there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Literal["cuda", "rocm", "cpu"] = Field(
        default="cuda", description="what the engine computes on; chooses how GPUs are handed to it"
    )
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
    packages: tuple[Package, ...] | None = Field(
        default=None,
        description="packages of the distribution that the engine needs; a compiler, Python's "
        "headers and libnuma1 unless said",
    )
    environment: dict[EnvironmentName, str] = Field(
        default={}, description="more environment variables for every replica (no secrets)"
    )
    hub_token_file: Path | None = Field(
        default=None,
        description="file here with the model hub's token, mode 0600; for gated models",
    )
    keep: int = Field(
        default=2, ge=1, le=10, description="installed versions to keep, the current included"
    )

    @field_validator("lock")
    @classmethod
    def _lock_is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{value} is not there; create it or leave the setting out")
        return value

    @field_validator("hub_token_file")
    @classmethod
    def _token_is_there(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None or not (info.context or {}).get("secrets", True):
            return value
        if not value.is_file() or not value.read_text().strip().isprintable():
            raise ValueError(f"{value} is not a file with one line; write the token into it")
        if value.stat().st_mode & 0o077:
            raise ValueError(f"{value} can be read by others; run chmod 600 {value}")
        return value

    @field_validator("index_url", "extra_index_urls", "wheelhouse")
    @classmethod
    def _without_credentials(
        cls, value: str | tuple[str, ...] | None
    ) -> str | tuple[str, ...] | None:
        for url in (value,) if isinstance(value, str) else value or ():
            if re.match(r"https?://[^/]*@", url):
                raise ValueError("holds credentials; put them into the hosts' /root/.netrc")
        return value

    @field_validator("environment")
    @classmethod
    def _one_line(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name in PLANNED:
                raise ValueError(f"{name} follows from {PLANNED[name]}; leave it out here")
            if not text.isprintable():
                raise ValueError(f"{name}: control characters and newlines are not allowed")
        return value

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

    @property
    def hub_token(self) -> str | None:
        """The model hub's token, or None where no file holds one."""
        return self.hub_token_file.read_text().strip() if self.hub_token_file else None
