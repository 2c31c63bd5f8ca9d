"""The settings of the GPU driver."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
)

from roles.host import LocalFile, StrictSettings, check_url, read_bytes

_VERSION = re.compile(r"[0-9]{3}\.[0-9]{2,3}(\.[0-9]{2})?")


def _whole_version(value: object) -> str:
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        raise ValueError(
            f"{value!r} is no version of NVIDIA's driver; say all of it in quotes, for instance "
            '"580.95.05", or say branch: 580'
        )
    return value


DriverVersion = Annotated[str, BeforeValidator(_whole_version)]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9._~:/\[\]@+=%-]+$")]


class DriverSettings(StrictSettings):
    """Which driver GPU hosts get, from where, and whether they may be rebooted for it."""

    install: Literal["when-needed", "never"] = Field(
        default="when-needed",
        description="install a driver where none answers or it is too old for the engine; a driver "
        "that does is left as it is",
    )
    branch: Annotated[int, Field(ge=450, le=999)] | None = Field(
        default=None,
        description="driver branch, for instance 580; chosen from the GPUs and the engine unless "
        "said",
    )
    version: DriverVersion | None = Field(
        default=None, description="exact driver version, for instance 580.95.05"
    )
    kernel_modules: Literal["auto", "open", "proprietary"] = Field(
        default="auto", description="which kernel modules; chosen from the GPUs unless said"
    )
    packaging: Literal["auto", "dkms", "precompiled"] = Field(
        default="auto", description="modules built on the host (DKMS) or ready for its kernel"
    )
    source: Literal["auto", "distribution", "nvidia"] = Field(
        default="auto",
        description="repository: the distribution's or NVIDIA's; where the distribution has signed "
        "modules of a fitting branch, the distribution's unless said",
    )
    mirror: Url | None = Field(
        default=None,
        description="URL that stands for NVIDIA's repositories (developer.download.nvidia.com/"
        "compute/cuda/repos), or for AMD's (repo.radeon.com); without credentials",
    )
    mirror_key_file: LocalFile | None = Field(
        default=None,
        description="file here with the mirror's signing key, where it is not the vendor's",
    )
    reboot: Literal["never", "when-needed"] = Field(
        default="never", description="whether a deploy may reboot a host that needs it"
    )
    reboot_batches: int = Field(
        default=10,
        ge=1,
        le=100,
        description="in how many batches at most hosts reboot; of the fleet, not of one host; at "
        "least two are used",
    )
    reboot_timeout_s: int = Field(
        default=900, ge=10, le=7200, description="seconds until a rebooted host must be back"
    )

    @field_validator("mirror")
    @classmethod
    def _without_credentials(cls, value: str | None) -> str | None:
        # Anybody can read repository files, and a run prints them.
        if value is not None and re.match(r"https?://[^/]*@", value):
            raise ValueError(
                "holds credentials; put them into the hosts' /etc/apt/auth.conf.d (dnf has no "
                "such place: let the mirror admit its hosts by their addresses)"
            )
        return value if value is None else check_url(value)

    @field_validator("mirror_key_file")
    @classmethod
    def _key_is_there(cls, value: Path | None) -> Path | None:
        try:
            if value is not None:
                read_bytes(value)
        except ValueError as error:
            raise ValueError(f"{error}; it is to hold the mirror's signing key") from None
        return value
