"""The root of what an inventory declares: one `llm` key of `all`, of a group or of a host."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, field_validator

from roles.balancer import BalancerSettings
from roles.driver import DriverSettings
from roles.engine import EngineSettings
from roles.hardware import GpusDeclaration, LinksDeclaration
from roles.interconnect import InterconnectSettings
from roles.launch import LaunchSettings
from roles.models import Count
from roles.topology import ServiceSettings
from roles.tuning import TuningSettings
from roles.validation import ValidationSettings


class FleetSettings(BaseModel):
    """What `all` declares under `llm`: the same for every host."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    services: tuple[ServiceSettings, ...] = Field(
        min_length=1,
        max_length=8,
        description="what is served, see below; several are planned, one is deployed so far",
    )
    balancer: BalancerSettings = Field(description="nginx in front, see below")
    engine: EngineSettings = Field(
        default_factory=EngineSettings, description="the engine's build, see below"
    )
    driver: DriverSettings = Field(
        default_factory=DriverSettings, description="the GPU driver, see below"
    )
    tuning: TuningSettings = Field(
        default_factory=TuningSettings, description="limits and the GPUs' state, see below"
    )
    interconnect: InterconnectSettings = Field(
        default_factory=InterconnectSettings,
        description="how it is measured that GPUs work together, see below",
    )
    launch: LaunchSettings = Field(
        default_factory=LaunchSettings, description="how replicas run, see below"
    )
    validation: ValidationSettings = Field(
        default_factory=ValidationSettings, description="how hosts are proved, see below"
    )

    @field_validator("services")
    @classmethod
    def _go_together(cls, services: tuple[ServiceSettings, ...]) -> tuple[ServiceSettings, ...]:
        names = [service.name for service in services]
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                raise ValueError(f"{name} is there {names.count(name)} times; give each its name")
        shares = sum(service.share or 0 for service in services)
        if shares > 1 + 1e-9:
            raise ValueError(f"their shares add up to {shares:g}; make that at most 1")
        return services


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
    price_per_month: Annotated[float, Field(ge=0, le=1e9)] | None = Field(
        default=None, description="what the host costs a month, for the cost of requests in a plan"
    )
    ports: tuple[Count, ...] | None = Field(
        default=None, description="ports of the host's replicas in order, instead of counting up"
    )
    network_gbit_s: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="how fast the host reaches others like it, for models larger than a host",
    )
    pinned_gpus: dict[str, tuple[Annotated[int, Field(ge=0)], ...]] = Field(
        default={}, description="GPUs by index that belong to a service, by its name"
    )
    drained: bool = Field(
        default=False,
        description="take the host's replicas out of the balancers; they go on running",
    )
    engine: dict[str, Any] = Field(
        default={}, description="settings of the engine that differ on this host"
    )
    driver: dict[str, Any] = Field(
        default={}, description="settings of the driver that differ on this host"
    )
    tuning: dict[str, Any] = Field(
        default={}, description="settings of the tuning that differ on this host"
    )

    @field_validator("driver")
    @classmethod
    def _of_one_host(cls, driver: dict[str, Any]) -> dict[str, Any]:
        if "reboot_batches" in driver:
            raise ValueError("reboot_batches is of the fleet; set it under llm of all")
        return driver
