"""The settings that declare a host's GPUs."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from roles.host import Several, StrictSettings

_CARD_NAME = re.compile(r"[A-Za-z0-9][][A-Za-z0-9 ._()/+,-]{0,99}")
_FORBIDDEN_IN_NAMES = re.compile(r"[^][A-Za-z0-9 ._()/+,-]")


# Plausible bounds of the memory of a GPU that serves a model.
_MIN_MIB, _MAX_MIB = 1024, 2**20


def check_card_name(name: str) -> str:
    """The name without surrounding blanks; ValueError for characters that no card's name has."""
    stripped = name.strip(" ")
    if not _CARD_NAME.fullmatch(stripped):
        raise ValueError(
            f"{name!r} is no GPU's name: write it as nvidia-smi prints it "
            "(letters, digits, spaces and . , _ - + / ( ) [ ], at most 100 characters)"
        )
    return stripped


def fit_card_name(name: str) -> str:
    """A driver's name for a card, without characters that `check_card_name` refuses, such as
    "™"."""
    plain = " ".join(_FORBIDDEN_IN_NAMES.sub("", name).split())
    return re.sub(r"^[^A-Za-z0-9]+", "", plain)[:100].rstrip()


class GpuDeclaration(StrictSettings):
    """Some equal GPUs of a host, in the long form of `gpus`."""

    name: str = Field(description="the GPU as nvidia-smi prints it, e.g. NVIDIA L40S")
    memory_mib: int | None = Field(
        default=None,
        description="memory.total of nvidia-smi in MiB; needed where the GPU is not in the table "
        "roles/hardware/cards.yaml",
    )
    count: int = Field(default=1, ge=1, le=64, description="how many of them follow each other")

    @field_validator("name")
    @classmethod
    def _known_characters(cls, name: str) -> str:
        return check_card_name(name)

    @field_validator("memory_mib")
    @classmethod
    def _is_plausible_memory(cls, mib: int | None) -> int | None:
        if mib is None or _MIN_MIB <= mib <= _MAX_MIB:
            return mib
        if 0 < mib < _MIN_MIB:
            raise ValueError(
                f"{mib} is less than a GPU has; give MiB: {mib} GiB is {mib * 1024}"
                if mib * 1024 <= _MAX_MIB
                else f"{mib} is less than a GPU has; give MiB"
            )
        raise ValueError(f"{mib} is no memory that a GPU has; give MiB: 48 GiB is 49152")


# Both include None, so that pydantic keeps the description: `gpus: GpusDeclaration = None`.
GpusDeclaration = Annotated[
    str | Several[GpuDeclaration] | None,
    Field(
        description="the host's GPUs in the driver's order: \"2x NVIDIA L40S\", several kinds "
        'joined by " + ", or a list of {name, memory_mib, count}'
    ),
]

LinksDeclaration = Annotated[
    str | None,
    Field(
        description='how the GPUs reach each other: "nvlink" (every pair), "pcie" (no pair) or the '
        "text that `nvidia-smi topo -m` prints"
    ),
]
