"""What an inventory may say about how replicas are launched."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, PositiveInt, StringConstraints

UserName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,30}$")]


class LaunchSettings(BaseModel):
    """How the units of replicas run and who may reach them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: UserName = Field(default="llm-engine", description="system user that runs the engines")
    start_timeout_s: PositiveInt = Field(
        default=1800, description="seconds until a started replica must have answered a completion"
    )
    drain_timeout_s: int = Field(
        default=30,
        ge=0,
        description="seconds that a stopping engine may take to finish its requests",
    )
    roll_batches: int = Field(
        default=10,
        ge=1,
        le=100,
        description="in how many batches at most hosts restart; one host at a time up to so many",
    )
    firewall: bool = Field(
        default=True, description="let only balancers reach the engines' ports (nftables)"
    )
    allow_from: tuple[IPvAnyNetwork, ...] = Field(
        default=(), description="more addresses or networks that may reach the engines' ports"
    )
