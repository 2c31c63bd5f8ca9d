"""The settings of llama.cpp: the build and its archive."""

import hashlib
from collections.abc import Iterable
from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from roles.engine.arguments import option_names, unknown_options
from roles.engine.build import Build, Source
from roles.engine.llama_cpp.arguments import OPTIONS


class LlamaCppSettings(Build):
    """Which llama.cpp hosts run, on what device, and the archive that it comes in."""

    kind: ClassVar[str] = "llama_cpp"

    version: Annotated[str, StringConstraints(pattern=r"^b[0-9]{1,6}$")] = Field(
        default="b11434", description="the build, as upstream numbers them"
    )
    archive: Source | None = Field(
        default=None,
        description="URL without credentials, or path on the hosts, of a .tar.gz with "
        "llama-server; there is none for every device and C library, so it is always to be said",
    )
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="the archive's SHA-256; nothing else is installed"
    )

    @model_validator(mode="after")
    def _archive_with_digest(self) -> Self:
        if (self.archive is None) != (self.sha256 is None):
            raise ValueError("archive and sha256 belong together: give both (sha256sum FILE)")
        return self

    @property
    def missing(self) -> tuple[str, str] | None:
        """The archive, if the inventory names none."""
        if self.archive is not None:
            return None
        return "archive", "is missing; give a .tar.gz with llama-server, and its sha256"

    def unknown_options(self, arguments: Iterable[str]) -> tuple[str, ...]:
        """Which options build b11434 does not know, in words; no other build's were read."""
        known = option_names(OPTIONS)
        return unknown_options(arguments, known, "llama-server b11434", abbreviated=False)

    @property
    def version_name(self) -> str:
        """The folder name of this build: its version, and a digest of its sources."""
        digest = hashlib.sha256(f"{self.version}\n{self.sha256}".encode()).hexdigest()
        return f"{self.kind}-{self.version}-{self.device}-{digest[:8]}"

    @property
    def system_packages(self) -> tuple[str, ...]:
        """The distribution's packages that hosts need before the engine is installed."""
        needed = ("libgomp1", "ca-certificates", "curl") if self.packages is None else self.packages
        return (*needed, "nftables", "iproute2")
