"""Settings of validation."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from roles.host import StrictSettings, check_path, check_url
from roles.models import Count

# File systems of the kernel.
_NOT_FOR_FILES = ("/proc", "/sys", "/dev")


class ValidationSettings(StrictSettings):
    """How hosts are tested at the end of a run, and which GPUs count as idle or busy."""

    endpoint_url: (
        Annotated[
            str,
            StringConstraints(pattern=r"^https://[A-Za-z0-9.:\[\]-]+$"),
            AfterValidator(check_url),
        ]
        | None
    ) = Field(
        default=None,
        description="URL by which this machine reaches the balancer, where it is not "
        "`https://ADDRESS:PORT` of the balancer's host",
    )
    load_s: float = Field(
        # One step of an engine takes some hundredths of a second.
        default=10,
        ge=0.1,
        le=600,
        description="how long all replicas of a host work at once, in seconds",
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
        # More than any card of the table but three leaves for a model.
        le=65_536,
        description="MiB from which a GPU counts as in use; a process of somebody else that holds "
        "less (a desktop) is a warning only",
    )
    completion_timeout_s: float = Field(
        default=60, ge=0.1, le=600, description="how long one completion may take, in seconds"
    )
    balancer_rounds: Count = Field(
        default=4,
        le=100,
        description="how often at most a batch of requests, one for each replica, is sent through "
        "the balancer until every replica has answered",
    )
    report_dir: str = Field(
        default="reports",
        min_length=1,
        description="folder for the JSON and JUnit files, and for the logs of runs",
    )

    @field_validator("report_dir")
    @classmethod
    def _can_be_a_folder(cls, value: str) -> str:
        folder = Path(os.path.expanduser(check_path(value)))
        if folder.parts[0].startswith("~"):
            raise ValueError(f"{value} is in the home of a user that is not there; correct it")
        for part in (folder, *folder.parents):
            if os.path.lexists(part) and not part.is_dir():
                raise ValueError(f"{part} is a file, or a link to no folder; name a folder")
        if os.path.realpath(folder).startswith(_NOT_FOR_FILES):
            raise ValueError(f"{value} is no place for files; name another folder")
        return str(folder)

    @model_validator(mode="after")
    def _idle_below_busy(self) -> "ValidationSettings":
        if self.idle_utilization_percent >= self.busy_utilization_percent:
            raise ValueError(
                "idle_utilization_percent must be below busy_utilization_percent; lower one"
            )
        return self
