"""Settings of the measurement of how GPUs reach each other."""

from pydantic import Field

from roles.host import StrictSettings


class InterconnectSettings(StrictSettings):
    """Whether and how long all-reduces over the GPUs of each planned replica are measured."""

    measure: bool = Field(
        default=True,
        description="measure all-reduces over the GPUs of each replica before it first starts",
    )
    timeout_s: int = Field(
        default=60,
        ge=5,
        le=600,
        description="seconds after which an all-reduce counts as hanging; its processes may take "
        "three times as long to start",
    )
