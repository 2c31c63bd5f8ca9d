"""The root of what an inventory declares: one `llm` key of `all`, of a group or of a host."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress

from roles.balancer import BalancerSettings
from roles.engine import EngineSettings
from roles.hardware import GpusDeclaration, LinksDeclaration
from roles.launch import LaunchSettings
from roles.models import Count
from roles.topology import ServiceSettings
from roles.validation import ValidationSettings


class FleetSettings(BaseModel):
    """What `all` declares under `llm`: the same for every host."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    services: tuple[ServiceSettings, ...] = Field(
        min_length=1, max_length=1, description="what is served: one service, see below"
    )
    balancer: BalancerSettings = Field(description="nginx in front, see below")
    engine: EngineSettings = Field(
        default_factory=EngineSettings, description="the engine's build, see below"
    )
    launch: LaunchSettings = Field(
        default_factory=LaunchSettings, description="how replicas run, see below"
    )
    validation: ValidationSettings = Field(
        default_factory=ValidationSettings, description="how hosts are proved, see below"
    )


class HostSettings(BaseModel):
    """What a host or a group of hosts declares under `llm`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus: GpusDeclaration = None
    links: LinksDeclaration = None
    address: IPvAnyAddress | None = Field(
        default=None,
        description="IP address that balancers and engines know the host by; `ssh_hostname` or the "
        "host's name where that is an IP address",
    )
    ports: tuple[Count, ...] | None = Field(
        default=None, description="ports of the host's replicas in order, instead of counting up"
    )
    drained: bool = Field(
        default=False,
        description="take the host's replicas out of the balancers; they go on running",
    )
    engine: dict[str, Any] = Field(
        default={}, description="settings of the engine that differ on this host"
    )
