"""The settings of llama.cpp: the build, and the archives or the source that it comes from."""

import re
from collections.abc import Iterable
from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from roles.engine.archive import Archive, Digest, given_archives, packages_of, version_folder
from roles.engine.build import Build, Source
from roles.engine.llama_cpp.arguments import LISTED, unknown_by
from roles.engine.needs import EngineNeeds, Version

COMPILERS = ("cmake", "ninja-build", "g++")
# Upstream builds its archives for CUDA on Ubuntu 24.04 (release.yml); ours were on Debian 12.
_UPSTREAMS_CUDA = re.compile(r"-bin-ubuntu-cuda-")
_NEWER_GLIBC, _GLIBC = (2, 39), (2, 34)
# What upstream's names say of the system, and of what it computes on.
_SYSTEMS = re.compile(r"(?<![a-z])(macos|darwin|win|windows|android|xcframework|ios)(?![a-z])")
_DEVICES = re.compile(r"(?<![a-z])(cuda|rocm|hip|vulkan|sycl|openvino|metal)(?![a-z])")
_OF_DEVICE = {"cuda": ("cuda",), "rocm": ("rocm", "hip"), "cpu": ()}
_NUMBER = re.compile(r"(?<![a-z0-9])b([0-9]{3,6})(?![a-z0-9])")


class LlamaCppSettings(Build):
    """Which llama.cpp hosts run, on what device, and what it comes in: archives, or its source."""

    kind: ClassVar[str] = "llama_cpp"

    version: Annotated[str, StringConstraints(pattern=r"^b[0-9]{1,6}$")] = Field(
        default=LISTED, description="the build, as upstream numbers them"
    )
    archive: Source | None = Field(
        default=None,
        description="URL without credentials, or path on the hosts, of a .tar.gz with "
        "llama-server; there is none for every device and C library, so it, or source, is always "
        "to be said",
    )
    sha256: Digest | None = Field(
        default=None, description="the archive's SHA-256; nothing else is installed"
    )
    cudart_archive: Source | None = Field(
        default=None,
        description="the archive with CUDA's libraries that upstream has beside each for CUDA, "
        "cudart-llama-…, where hosts do not have them",
    )
    cudart_sha256: Digest | None = Field(default=None, description="its SHA-256")
    source: Source | None = Field(
        default=None,
        description="URL without credentials, or path on the hosts, of a .tar.gz of llama.cpp's "
        "source; hosts build it where there is no archive, or their C library is older than "
        "upstream's archives for CUDA need (glibc 2.39)",
    )
    source_sha256: Digest | None = Field(default=None, description="its SHA-256")

    @model_validator(mode="after")
    def _archives_are_whole(self) -> Self:
        # ValueError for one of which only half is given.
        _ = self.archives, self.sources
        if self.cudart_archive and not (self.archive and self.device == "cuda"):
            raise ValueError("cudart_archive is beside an archive for CUDA; leave it out")
        return self

    @model_validator(mode="after")
    def _archive_is_for_hosts(self) -> Self:
        name = (self.archive or "").rpartition("/")[2].lower()
        if system := _SYSTEMS.search(name):
            raise ValueError(f"archive: {name} is for {system[1]}; name the one for Linux")
        wrong = [one for one in _DEVICES.findall(name) if one not in _OF_DEVICE[self.device]]
        if wrong:
            raise ValueError(
                f"archive: {name} is for {wrong[0]}, and device is {self.device}; change one of "
                "them"
            )
        number = _NUMBER.search(name)
        if number and f"b{int(number[1])}" != f"b{int(self.version[1:])}":
            raise ValueError(
                f"archive: {name} is build b{number[1]}, and version is {self.version}; change one "
                "of them"
            )
        return self

    @property
    def missing(self) -> tuple[str, str] | None:
        """An archive or a source, if the inventory names none."""
        if self.archive is not None or self.source is not None:
            return None
        return "archive", "is missing; give a .tar.gz with llama-server, and its sha256, or source"

    @property
    def archives(self) -> tuple[Archive, ...]:
        """The archives, in the order in which they are unpacked."""
        return given_archives(
            archive=(self.archive, self.sha256),
            cudart_archive=(self.cudart_archive, self.cudart_sha256),
        )

    @property
    def sources(self) -> tuple[Archive, ...]:
        """The archive of the source, if there is one."""
        return given_archives(source=(self.source, self.source_sha256))

    @property
    def archive_glibc(self) -> Version:
        """The C library that the archive needs, by its name."""
        return _NEWER_GLIBC if _UPSTREAMS_CUDA.search(self.archive or "") else _GLIBC

    @property
    def glibc(self) -> Version:
        """The C library that hosts need: with a source any will do."""
        return EngineNeeds.glibc if self.source else self.archive_glibc

    @property
    def options_are_listed(self) -> bool:
        """Whether this is the build whose options were read."""
        return self.version == LISTED

    def unknown_options(self, arguments: Iterable[str]) -> tuple[str, ...]:
        """Which options build b11434 does not know, in words; no other build's were read."""
        return unknown_by(arguments)

    @property
    def version_name(self) -> str:
        """The folder name of this build: its version, and a digest of its sources."""
        more = (one.sha256 for one in (*self.archives[1:], *self.sources))
        digests = (str(self.sha256), *more)
        return version_folder(self.kind, self.version, self.device, digests)

    @property
    def system_packages(self) -> tuple[str, ...]:
        """The distribution's packages that hosts need before the engine is installed."""
        compilers = COMPILERS if self.source else ()
        usual = ("libgomp1", *packages_of((*self.archives, *self.sources)), *compilers)
        needed = usual if self.packages is None else self.packages
        return (*needed, "nftables", "iproute2")
