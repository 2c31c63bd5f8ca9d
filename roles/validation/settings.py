"""What an inventory may say about validation."""

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    StringConstraints,
    model_validator,
)

from roles.models import Count


class ValidationSettings(BaseModel):
    """How hard hosts are tested at the end of a run, and what counts as idle or busy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint_url: (
        Annotated[str, StringConstraints(pattern=r"^https://[A-Za-z0-9.:\[\]-]+$")] | None
    ) = Field(
        default=None,
        description="URL by which this machine reaches the balancer, where it is not "
        "`https://ADDRESS:PORT` of the balancer's host",
    )
    load_s: PositiveFloat = Field(
        default=10, le=600, description="how long all replicas of a host work at once, in seconds"
    )
    load_concurrency: Count = Field(
        default=8, le=64, description="requests at a time to each replica under load"
    )
    load_max_tokens: Count = Field(
        default=64,
        description="tokens of each answer under load, at most; prompt and answer must fit",
    )
    idle_utilization_percent: int = Field(
        default=5, ge=0, le=100, description="a planned GPU at or below this under load fails"
    )
    busy_utilization_percent: int = Field(
        default=70, ge=0, le=100, description="a planned GPU below this under load is warned about"
    )
    minimum_memory_mib: Count = Field(
        default=256,
        description="MiB from which a GPU counts as in use; a process of somebody else that holds "
        "less (a desktop) is a warning only",
    )
    completion_timeout_s: PositiveFloat = Field(
        default=60, le=600, description="how long one completion may take, in seconds"
    )
    balancer_rounds: Count = Field(
        default=4,
        le=100,
        description="through the balancer, as many requests as there are replicas are sent at "
        "once, at most so often, until every replica has answered",
    )
    report_dir: str = Field(
        default="reports", min_length=1, description="folder for the JSON and JUnit files"
    )

    @model_validator(mode="after")
    def _idle_below_busy(self) -> "ValidationSettings":
        if self.idle_utilization_percent >= self.busy_utilization_percent:
            raise ValueError("idle_utilization_percent must be below busy_utilization_percent")
        return self
