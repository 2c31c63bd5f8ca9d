"""Checks one host of an inventory. Each function returns its result, or None, and the problems."""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from roles.declaration import (
    GPU_HOSTS,
    ROLES,
    Declaration,
    DeclaredHost,
    HostSettings,
    Service,
    merged,
    problems_of,
)
from roles.driver import DriverSettings, is_amd, problems_of_declaration
from roles.engine import ENGINE_SETTINGS, Build, EngineNeeds, engine_needs
from roles.fleet.fleet import Host
from roles.hardware import (
    Gpu,
    Hardware,
    completed_from_recording,
    declared_hardware,
    declared_links,
    recorded_hardware,
)
from roles.host import check_address
from roles.tuning import TuningSettings, with_mig

# A file name on Linux has at most 255 bytes, and names of reports are longer than the host's.
HOST_NAME = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

# Settings that have no meaning on a host without GPUs.
_OF_GPU_HOSTS = (
    *("gpus", "links", "ports", "pinned_gpus", "network_gbit_s", "drained", "retired"),
    *("price_per_month", "members_address"),
)

Settings = TypeVar("Settings", bound=BaseModel)
Problems = list[str]
# By the service's name and the engine's kind.
Engines = Mapping[tuple[str, str], Build]


@dataclass(frozen=True)
class Defaults:
    """The fleet's values of settings that a host may override.

    `data` is as it was written. A value that is None or missing is invalid, which is reported as a
    problem of the fleet. `kinds` has the settings of each kind of engine, `engines` those of each
    service's engines.
    """

    data: Mapping[str, Any]
    secrets: bool
    services: tuple[Service, ...]
    driver: DriverSettings | None
    tuning: TuningSettings | None
    kinds: Mapping[str, Build] = field(default_factory=dict)
    engines: Engines = field(default_factory=dict)

    @property
    def wanted(self) -> tuple[tuple[Service, str], ...]:
        """Each service with each kind of its engines."""
        return tuple((service, kind) for service in self.services for kind in service.kinds)


@dataclass(frozen=True)
class OwnSettings:
    """The settings of one host that may differ from the fleet's."""

    driver: DriverSettings
    tuning: TuningSettings
    engines: Engines


def validated(
    kind: type[Settings], data: Any, where: str, secrets: bool = True
) -> tuple[Settings | None, Problems]:
    """Settings of one kind, validated from what was written at the place `where`."""
    try:
        return kind.model_validate(data, context={"secrets": secrets}), []
    except ValidationError as error:
        return None, list(problems_of(error, kind, where))


def as_mapping(value: Any) -> Mapping[str, Any]:
    """A value as a mapping; empty where it is none."""
    return value if isinstance(value, Mapping) else {}


def check_host(
    name: str, declared: DeclaredHost, recorded: Any, defaults: Defaults
) -> tuple[Host | None, Problems]:
    """A checked host of an inventory; `recorded` is its entry of the recorded hardware."""
    where = f"hosts[{name}]"
    if not HOST_NAME.fullmatch(name):
        name = f"{name!r:.80}"
        return None, [f"hosts[{name}]: use letters, digits, '.', '_' and '-' in a host's name"]
    roles = declared.groups & set(ROLES)
    problems = [] if roles else [f"{where}: is in no role; put it into {' or '.join(ROLES)}"]
    settings, found = validated(HostSettings, dict(declared.data), where)
    problems += found
    if settings is None:
        return None, problems
    own, found = _own_settings(settings, defaults, where)
    problems += found
    mig = own.tuning.mig if own else None
    hardware, found = check_hardware(settings, recorded, roles, mig, where)
    problems += found
    address, found = _address(settings, declared.ssh_address, where)
    problems += found
    if own is None or address is None:
        return None, problems
    if hardware is not None and not settings.retired:
        own = _for_vendor(own, settings, hardware)
        problems += _driver_problems(own, settings, defaults.services, hardware, where)
    return _host(name, roles, address, hardware, settings, own), problems


def _host(
    name: str,
    roles: frozenset[str],
    address: str,
    hardware: Hardware | None,
    settings: HostSettings,
    own: OwnSettings,
) -> Host:
    return Host(
        name=name,
        roles=roles,
        address=address,
        hardware=hardware,
        driver=own.driver,
        tuning=own.tuning,
        engines=own.engines,
        drained=settings.drained,
        retired=settings.retired,
        ports=settings.ports,
        price_per_month=settings.price_per_month,
        pinned_gpus=settings.pinned_gpus,
        network_gbit_s=settings.network_gbit_s,
        own_members_address=str(settings.members_address) if settings.members_address else None,
    )


def _own_settings(
    settings: HostSettings, defaults: Defaults, where: str
) -> tuple[OwnSettings | None, Problems]:
    """The settings of one host that may differ from the fleet's; None where any is invalid.

    Problems of the fleet's own settings are reported for the fleet, not here.
    """
    driver, problems = _merged_settings(DriverSettings, "driver", settings.driver, defaults, where)
    tuning, found = _merged_settings(TuningSettings, "tuning", settings.tuning, defaults, where)
    problems += found
    engines, found = _engines(settings, defaults, where)
    problems += found
    if driver is None or tuning is None or engines is None:
        return None, problems
    return OwnSettings(driver, tuning, engines), problems


def _merged_settings(
    kind: type[Settings], name: str, own: Mapping[str, Any], defaults: Defaults, where: str
) -> tuple[Settings | None, Problems]:
    if not own:
        return getattr(defaults, name), []
    data = merged(as_mapping(defaults.data.get(name)), own)
    return validated(kind, data, f"{where}.{name}", defaults.secrets)


def _engines(
    settings: HostSettings, defaults: Defaults, where: str
) -> tuple[Engines | None, Problems]:
    """The settings of each service's engine on a host, merged from the fleet's, the host's and the
    service's own."""
    if not settings.engines:
        wrong = len(defaults.engines) < len(defaults.wanted)
        return None if wrong else defaults.engines, []
    problems: Problems = []
    fleet = as_mapping(defaults.data.get("engines"))
    engines: dict[tuple[str, str], Build] = {}
    kinds: dict[str, Build | None] = dict(defaults.kinds)
    for kind, own in settings.engines.items():
        data = merged(as_mapping(fleet.get(kind)), own)
        place = f"{where}.engines.{kind}"
        kinds[kind], found = validated(ENGINE_SETTINGS[kind], data, place, defaults.secrets)
        problems += found
    for service, kind in defaults.wanted:
        engine, overrides = kinds.get(kind), service.engine_settings
        if overrides and kind in settings.engines and engine is not None:
            data = merged(merged(as_mapping(fleet.get(kind)), settings.engines[kind]), overrides)
            place = f"{where}.engines.{kind}"
            engine, found = validated(ENGINE_SETTINGS[kind], data, place, defaults.secrets)
            problems += found
        elif overrides:
            engine = defaults.engines.get((service.name, kind))
        if engine is not None:
            engines[service.name, kind] = engine
    return engines if len(engines) == len(defaults.wanted) else None, problems


def _for_vendor(own: OwnSettings, settings: HostSettings, hardware: Hardware) -> OwnSettings:
    """The settings of a host; with AMD's cards without the fleet's settings of NVIDIA's driver."""
    if not is_amd(hardware.gpus):
        return own
    nvidia = {"branch": None, "version": None, "kernel_modules": "auto", "packaging": "auto"}
    left = {key: value for key, value in nvidia.items() if key not in settings.driver}
    return OwnSettings(own.driver.model_copy(update=left), own.tuning, own.engines)


def _driver_problems(
    own: OwnSettings,
    settings: HostSettings,
    services: tuple[Service, ...],
    hardware: Hardware,
    where: str,
) -> Problems:
    """Why the declared driver does not suit a host's GPUs or engines."""
    problems: Problems = []
    if own.tuning.power_limit_w is not None and is_amd(hardware.gpus):
        problems.append(
            f"{where}.tuning.power_limit_w: is set by nvidia-smi, and the GPUs are AMD's; leave it "
            "out"
        )
    for service, gpus in (one for each in services for one in each.by_engine(hardware.gpus)):
        needs = engine_needs(own.engines[service.name, service.kind])
        # Frozen settings are hashable, though their type does not say so.
        driver: Hashable = own.driver  # pyright: ignore[reportAssignmentType]
        for problem in _problems_of_declaration(driver, needs, gpus):
            if problem.startswith("engine."):
                problem = f"engines.{service.kind}{problem.removeprefix('engine')}"
            # A problem of the fleet's settings is reported once, not for each host.
            shared = problem.startswith("driver.") and not settings.driver
            problems.append(problem if shared else f"{where}.{problem}")
    return list(dict.fromkeys(problems))


@lru_cache(maxsize=4096)
def _problems_of_declaration(
    driver: DriverSettings, needs: EngineNeeds, gpus: tuple[Gpu, ...]
) -> tuple[str, ...]:
    """The result of `problems_of_declaration`, cached as many hosts are equal."""
    return tuple(problems_of_declaration(driver, needs, gpus))


def check_hardware(
    settings: HostSettings,
    entry: Any,
    roles: frozenset[str],
    mig: Any,
    where: str,
) -> tuple[Hardware | None, Problems]:
    """The host's hardware: as declared, completed by what is recorded; else as recorded.

    Declared MIG slices (`mig`) replace the GPUs that they are made of.
    """
    if GPU_HOSTS not in roles:
        misplaced = [name for name in _OF_GPU_HOSTS if getattr(settings, name)]
        return None, [
            f"{where}.{name}: the host is not in {GPU_HOSTS}; put it there" for name in misplaced
        ]
    recorded, problems = _recorded(entry, where)
    declared, found = _declared(settings, where)
    problems += found
    try:
        recorded = with_mig(recorded, mig) if recorded else None
        hardware = (
            completed_from_recording(with_mig(declared, mig), recorded) if declared else recorded
        )
        return hardware, problems
    except ValueError as error:
        return None, [*problems, f"{where}.tuning.{error}"]


def hardware_from(declaration: Declaration, host: Host, entry: Any) -> Hardware:
    """A host's hardware, if this were its recorded entry; ValueError where that is invalid."""
    settings = HostSettings.model_validate(dict(declaration.hosts[host.name].data))
    where = f"hosts[{host.name}]"
    hardware, problems = check_hardware(settings, entry, host.roles, host.tuning.mig, where)
    if hardware is None:
        raise ValueError("; ".join(problems) or f"{where}: no GPU is recorded")
    return hardware


def _recorded(entry: Any, where: str) -> tuple[Hardware | None, Problems]:
    try:
        return recorded_hardware(entry) if entry is not None else None, []
    except ValueError as error:
        problem = (
            f"{where}: its recorded hardware cannot be read: {error}; delete the entry and record "
            "it again with deploys/discover.py"
        )
        return None, [problem]


def _declared(settings: HostSettings, where: str) -> tuple[Hardware | None, Problems]:
    if settings.gpus is None:
        if settings.links is None:
            return None, []
        return None, [f"{where}.links: declare gpus too, or leave links to what is recorded"]
    field = "gpus"
    try:
        hardware, field = declared_hardware(settings.gpus), "links"
        links = declared_links(settings.links, len(hardware.gpus))
        return replace(hardware, links=links), []
    except ValueError as error:
        return None, [f"{where}.{field}: {error}"]


def _address(settings: HostSettings, reached_by: str, where: str) -> tuple[str | None, Problems]:
    if settings.address is not None:
        return str(settings.address), []
    if reached_by == "@local":
        return "127.0.0.1", []
    try:
        ip_address(reached_by)
    except ValueError:
        problem = (
            f"{where}.address: {reached_by!r:.80} is no IP address; give the one by which the "
            "balancers and the GPU hosts reach each other"
        )
        return None, [problem]
    try:
        return str(check_address(reached_by)), []
    except ValueError as error:
        return None, [f"{where}.address: {error}"]
