"""The settings of a host's shared memory, power limits and MIG slices."""

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from roles.host import Several, StrictSettings

# As nvidia-smi prints them; suffixes such as "+me" and "+gfx" name a slice's media engines.
MigProfile = Annotated[
    str, StringConstraints(pattern=r"^[1-7]g\.[1-9][0-9]{0,2}gb(\+me(\.all)?|-me|\+gfx)?$")
]
# No card has more compute slices than this.
MAX_SLICES = 7


class TuningSettings(StrictSettings):
    """What is set on GPU hosts for engines; clocks are never touched."""

    dev_shm_gib: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None,
        description="least size of /dev/shm, which is never shrunk; unless said, 10 where GPUs of "
        "a replica work together, but at most half of the memory",
    )
    power_limit_w: Annotated[int, Field(ge=50, le=2000)] | None = Field(
        default=None,
        description="power limit of each GPU in watts, now and after a reboot; the card's own "
        "unless said",
    )
    mig: dict[Annotated[int, Field(ge=0, le=63)], Several[MigProfile]] | None = Field(
        default=None,
        description="MIG slices of GPUs by index, for instance {0: [3g.40gb, 3g.40gb]}; GPUs that "
        "it does not name are left as they are",
    )

    @field_validator("mig")
    @classmethod
    def _has_slices(
        cls, mig: dict[int, tuple[str, ...]] | None
    ) -> dict[int, tuple[str, ...]] | None:
        for gpu, profiles in (mig or {}).items():
            if not profiles:
                raise ValueError(f"GPU {gpu} has no slice; name some, or leave the GPU out")
            if (count := sum(int(profile[0]) for profile in profiles)) > MAX_SLICES:
                raise ValueError(
                    f"GPU {gpu}: {', '.join(profiles)} are {count} slices; a GPU has at most "
                    f"{MAX_SLICES}"
                )
        return mig
