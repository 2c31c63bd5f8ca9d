"""The root of all settings: what `llm` may hold in the data of `all`, of a group or of a host."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from roles.balancer import BalancerSettings, Keys, RouteSettings, check_name, keys_of, needs_secrets
from roles.driver import DriverSettings
from roles.engine import ENGINE_SETTINGS
from roles.hardware import GpusDeclaration, LinksDeclaration
from roles.host import EnginePort, HostAddress, Several, StrictSettings
from roles.interconnect import InterconnectSettings
from roles.launch import LaunchSettings
from roles.topology import ServiceSettings
from roles.tuning import TuningSettings
from roles.validation import ValidationSettings
from roles.watchdog import ServiceWatch, WatchdogSettings

# One optional field for each kind of engine, so that problems have its name in their place.
EnginesSettings = create_model(
    "EnginesSettings",
    __base__=StrictSettings,
    **{kind: (settings | None, None) for kind, settings in ENGINE_SETTINGS.items()},  # type: ignore
)

# What a prompt of the validation takes, with the lines that chat templates add.
_PROMPT_TOKENS = 64


class Service(ServiceSettings):
    """A service as an inventory declares it: what to plan, its engine, its route, its keys.

    `engine: {vllm: {...}}` names the engine's kind, with settings for this service alone.
    """

    _engine_settings: dict[str, Any] = PrivateAttr(default_factory=dict)
    interruptible: bool = Field(
        default=True,
        description="whether a rolling update may leave it without a replica for a while, which it "
        "announces; otherwise such a change is refused",
    )
    route: RouteSettings = Field(
        default_factory=RouteSettings,
        description="how clients reach it among other services, and its keys, see below",
    )

    watchdog: ServiceWatch = Field(
        default_factory=ServiceWatch,
        description="when a replica that hangs leaves the rotation and is restarted, see below",
    )

    @property
    def engine_settings(self) -> dict[str, Any]:
        """The engine's settings for this service alone, as they were written."""
        return self._engine_settings

    @model_validator(mode="wrap")
    @classmethod
    def _engine_with_settings(cls, data: Any, checked: ModelWrapValidatorHandler[Self]) -> Self:
        engine = data.get("engine") if isinstance(data, Mapping) else None
        if not isinstance(engine, Mapping) or len(engine) != 1:
            return checked(data)
        ((kind, own),) = engine.items()
        if kind not in ENGINE_SETTINGS or not isinstance(own, Mapping):
            return checked(data)
        service = checked({**data, "engine": kind})
        service._engine_settings = dict(own)
        return service

    @field_validator("engine", mode="before")
    @classmethod
    def _kind_is_known(cls, engine: Any) -> Any:
        if isinstance(engine, Mapping):
            kinds = ", ".join(ENGINE_SETTINGS)
            raise ValueError(f"name one of {kinds}, auto, or map one kind to its settings")
        if engine is not None:
            _check_kind(engine, (*ENGINE_SETTINGS, "auto"))
        return engine


def _check_kind(kind: Any, known: tuple[str, ...]) -> None:
    if kind not in known:
        raise ValueError(f"{kind!r} is no kind of engine; use one of {', '.join(known)}")


class FleetSettings(StrictSettings):
    """What `all` declares under `llm`: the same for every host."""

    services: Several[Service] = Field(
        min_length=1, max_length=8, description="what is served, see below"
    )
    balancer: BalancerSettings | None = Field(
        default=None,
        description="the balancer in front, see below; may be left out where every service is a "
        "`single_endpoint`",
    )
    engines: EnginesSettings = Field(  # pyright: ignore[reportInvalidTypeForm]
        default_factory=EnginesSettings,
        description="builds of the engines, by their kind, see below",
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
    watchdog: WatchdogSettings = Field(
        default_factory=WatchdogSettings,
        description="how replicas that hang are found and restarted, see below",
    )

    @field_validator("services")
    @classmethod
    def _go_together(cls, services: tuple[Service, ...]) -> tuple[Service, ...]:
        names = [service.name for service in services]
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                raise ValueError(f"{name} is there {names.count(name)} times; give each its name")
        shares = sum(service.share or 0 for service in services)
        if shares > 1 + 1e-9:
            raise ValueError(f"their shares add up to {shares:g}; make that at most 1")
        return services

    @model_validator(mode="after")
    def _single_endpoint_is_alone(self) -> Self:
        for number, one in enumerate(self.services):
            if one.single_endpoint and len(self.services) > 1:
                raise ValueError(
                    f"services[{number}].single_endpoint: it takes the hosts for itself, and there "
                    f"are {len(self.services)} services; leave it out, or serve it alone"
                )
        return self

    @model_validator(mode="after")
    def _certificate_is_for_routes(self, info: ValidationInfo) -> Self:
        certificate = self.balancer and self.balancer.certificate_file
        for number, service in enumerate(self.services):
            name = service.route.server_name
            if certificate and name and needs_secrets(info):
                try:
                    check_name(certificate, name)
                except ValueError as error:
                    place = f"services[{number}].route.server_name"
                    raise ValueError(f"{place}: {error}") from None
        return self

    @model_validator(mode="after")
    def _load_fits(self) -> Self:
        tokens = self.validation.load_max_tokens
        for number, service in enumerate(self.services):
            if tokens + _PROMPT_TOKENS > service.max_model_len:
                raise ValueError(
                    f"validation.load_max_tokens: {tokens} leaves no room for a prompt in "
                    f"services[{number}].max_model_len {service.max_model_len}; set less: a prompt "
                    f"takes up to {_PROMPT_TOKENS}"
                )
        return self

    def keys(self, service: Service) -> Keys:
        """The keys that clients of a service send and that its engines expect."""
        return keys_of(service.route, self.balancer)


class HostSettings(StrictSettings):
    """What a host or a group of hosts declares under `llm`."""

    gpus: GpusDeclaration = None
    links: LinksDeclaration = None
    address: HostAddress | None = Field(
        default=None,
        description="IP address that balancers and engines know the host by; `ssh_hostname` or the "
        "host's name where that is an IP address",
    )
    members_address: HostAddress | None = Field(
        default=None,
        description="IP address by which hosts of the same replica reach this one, as of a faster "
        "network; `address` unless said",
    )
    price_per_month: Annotated[float, Field(ge=0, le=1e8)] | None = Field(
        default=None, description="what the host costs a month, for the cost of requests in a plan"
    )
    ports: Several[EnginePort] | None = Field(
        default=None, description="ports of the host's replicas in order, instead of counting up"
    )
    network_gbit_s: Annotated[float, Field(ge=0.1, le=100_000)] | None = Field(
        default=None,
        description="how fast the host reaches others like it: from 200 on the plan says how the "
        "experts of a model that only several hosts hold would go over all their GPUs",
    )
    pinned_gpus: dict[str, Several[Annotated[int, Field(ge=0, le=63)]]] = Field(
        default={}, description="GPUs by index that belong to a service, by its name"
    )
    drained: bool = Field(
        default=False,
        description="take the host's replicas out of the balancers; they go on running",
    )
    retired: bool = Field(
        default=False,
        description="drain the host and take its replicas down; take it out of the inventory once "
        "a deploy has emptied it",
    )
    engines: dict[str, dict[str, Any]] = Field(
        default={}, description="settings of engines that differ on this host, by kind"
    )
    driver: dict[str, Any] = Field(
        default={}, description="settings of the driver that differ on this host"
    )
    tuning: dict[str, Any] = Field(
        default={}, description="settings of the tuning that differ on this host"
    )

    @field_validator("engines")
    @classmethod
    def _kinds_are_known(cls, engines: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for kind in engines:
            _check_kind(kind, tuple(ENGINE_SETTINGS))
        return engines

    @field_validator("driver")
    @classmethod
    def _of_one_host(cls, driver: dict[str, Any]) -> dict[str, Any]:
        if "reboot_batches" in driver:
            raise ValueError("reboot_batches is of the fleet; set it under llm of all")
        return driver
