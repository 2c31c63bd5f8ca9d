"""The operating systems that drivers can be installed on."""

from dataclasses import dataclass
from typing import Literal

Family = Literal["ubuntu", "debian", "rhel"]

SUPPORTED = "Ubuntu 22.04 and 24.04, Debian 12 and 13, RHEL, Rocky Linux and AlmaLinux 9"

_RELEASES: dict[str, tuple[Family, tuple[str, ...]]] = {
    "ubuntu": ("ubuntu", ("22.04", "24.04")),
    "debian": ("debian", ("12", "13")),
    "rhel": ("rhel", ("9",)),
    "rocky": ("rhel", ("9",)),
    "almalinux": ("rhel", ("9",)),
}


@dataclass(frozen=True)
class OperatingSystem:
    """As /etc/os-release and `uname -m` say it: ID, VERSION_ID ("9.6"), machine ("x86_64")."""

    id: str
    version: str
    arch: str

    @property
    def family(self) -> Family | None:
        """The family of its packages; None if it is not supported."""
        family, releases = _RELEASES.get(self.id, (None, ()))
        return family if self.release in releases else None

    @property
    def release(self) -> str:
        """The part of the version that repositories are made for: "22.04", "12", "9"."""
        return self.version if self.id == "ubuntu" else self.version.partition(".")[0]

    @property
    def uses_apt(self) -> bool:
        """Whether packages come by apt; else by dnf."""
        return self.family in ("ubuntu", "debian")

    @property
    def name(self) -> str:
        """For a person: "ubuntu 24.04 (x86_64)"."""
        return f"{self.id} {self.version} ({self.arch})"
