"""The settings of SGLang: the build, and where it is installed from."""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from roles.engine.needs import Version
from roles.engine.packages import PackagesBuild, Requirement
from roles.engine.sglang.arguments import unknown_by

# The version whose options were listed.
_LISTED: Version = (0, 5, 23)
PLANNED = {
    "SGLANG_HOST_IP": "the plan",
    "SGLANG_LOGGING_CONFIG_PATH": "launch, which keeps keys out of the log",
    "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "launch",
    "SGLANG_ENABLE_POST_CAPTURE_KV_SIZING": "the plan, which counts memory without it",
    "SGLANG_FORCE_SHUTDOWN": "launch.drain_timeout_s",
    "SGL_FORCE_SHUTDOWN": "launch.drain_timeout_s",
}


class SglangSettings(PackagesBuild):
    """Which SGLang hosts run, on what device, and how it is installed."""

    kind: ClassVar[str] = "sglang"
    engine_name: ClassVar[str] = "SGLang"
    packages_pattern: ClassVar[str] = "sglang"
    locks: ClassVar[Path] = Path(__file__).with_name("locks")

    requirement: Requirement = Field(
        default="sglang==0.5.23", description="the engine's package and exact version"
    )

    @model_validator(mode="after")
    def _build_of_the_device(self) -> Self:
        if self.device != "cuda" and not (
            self.index_url or self.extra_index_urls or self.wheelhouse
        ):
            raise ValueError(
                f"device: the packages of {self.requirement} are for CUDA; name an index_url or a "
                f"wheelhouse with a build for {self.device}, or use vllm or llama_cpp there"
            )
        return self

    @property
    def least_python(self) -> Version:
        """The oldest Python that this version supports, from its wheels' metadata."""
        return (3, 11) if self.numbers >= (0, 5, 20) else (3, 10)

    @property
    def options_are_listed(self) -> bool:
        """Whether this is 0.5.23, whose options were read."""
        return self.numbers == _LISTED

    def unknown_options(self, arguments: Iterable[str]) -> tuple[str, ...]:
        """Which options 0.5.23 does not know, in words; it takes beginnings of options, too."""
        return unknown_by(arguments)

    @classmethod
    def planned(cls) -> dict[str, str]:
        """Environment variables that an inventory may not set, and what decides them."""
        return super().planned() | PLANNED
