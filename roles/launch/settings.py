"""Settings of how replicas are launched."""

from typing import Annotated

from pydantic import (
    Field,
    StringConstraints,
    field_validator,
)

from roles.host import DAY_S, HostNetwork, Several, StrictSettings

UserName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,30}$")]

# Users that a system has for other programs.
_TAKEN = {
    *("bin", "backup", "daemon", "haproxy", "mail", "man", "nginx", "nobody", "sshd", "sync"),
    *("sys", "www-data"),
}


class LaunchSettings(StrictSettings):
    """How replicas run as units, and who may reach them."""

    user: UserName = Field(default="llm-engine", description="system user that runs the engines")
    start_timeout_s: int = Field(
        default=1800,
        ge=1,
        le=DAY_S,
        description="seconds until a started replica must have answered a completion",
    )
    drain_timeout_s: int = Field(
        default=30,
        ge=0,
        le=DAY_S,
        description="seconds that a stopping engine may take to finish its requests",
    )
    roll_batches: int = Field(
        default=10,
        ge=1,
        le=100,
        description="most batches of a rolling update, 1 counting as 2; up to this many hosts "
        "move one by one",
    )
    internal_ports_from: int = Field(
        default=29000,
        ge=1024,
        le=60000,
        description="first of the ports that a replica's own processes use among themselves, "
        "100 for each replica; nobody else reaches them",
    )
    firewall: bool = Field(
        default=True, description="let only balancers reach the engines' ports (nftables)"
    )
    allow_from: Several[HostNetwork] = Field(
        default=(), description="more addresses or networks that may reach the engines' ports"
    )

    @field_validator("user")
    @classmethod
    def _not_root(cls, value: str) -> str:
        if value == "root":
            raise ValueError("engines must not run as root; name a system user, it will be made")
        if value in _TAKEN:
            raise ValueError(f"{value} is another program's user; name one of its own")
        return value
