"""From what an inventory declares to a typed fleet with its plan. Pure, but for the files that
settings name: those must be there."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from roles.declaration.problems import DeclarationError, merged, problems_of
from roles.declaration.settings import FleetSettings, HostSettings
from roles.driver import DriverSettings, is_amd, problems_of_declaration
from roles.engine import EngineSettings, engine_needs
from roles.hardware import (
    Hardware,
    LinkVerdict,
    completed,
    declared_hardware,
    recorded_hardware,
)
from roles.plan import HostPlan, Plan
from roles.topology import ServiceSettings, cluster_words, plan_services
from roles.tuning import TuningSettings, with_mig

GPU_HOSTS, BALANCERS = "gpu_hosts", "balancers"
ROLES = (GPU_HOSTS, BALANCERS)
HOST_NAME = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9._-]*")

Settings = TypeVar("Settings", bound=BaseModel)
OwnSettings = tuple[EngineSettings, DriverSettings, TuningSettings]


@dataclass(frozen=True)
class Declaration:
    """One inventory as it was written: data of `all`, and of each host, under our key.

    `hosts` maps a host's name to its groups, its merged data and the name it is reached by;
    `recorded` maps it to the entry of the recorded hardware, as it was read.
    """

    name: str
    fleet: Mapping[str, Any]
    hosts: Mapping[str, "DeclaredHost"]
    recorded: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeclaredHost:
    """A host as it was written: its groups, its `llm` data, where ssh reaches it."""

    groups: frozenset[str]
    data: Mapping[str, Any]
    reached_by: str


@dataclass(frozen=True)
class Host:
    """A checked host: its roles, its address, its GPUs where it has any.

    `devices` is what CUDA calls a planned GPU where that is not its index, by that index, and
    `driver_version` the driver's that reports them: both are known once the host was asked.
    `unready` says that its driver has a fault that a deploy is to mend.
    """

    name: str
    roles: frozenset[str]
    address: str
    hardware: Hardware | None
    engine: EngineSettings
    driver: DriverSettings
    tuning: TuningSettings
    drained: bool
    ports: tuple[int, ...] | None
    price_per_month: float | None = None
    pinned_gpus: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    network_gbit_s: float | None = None
    devices: Mapping[int, str] = field(default_factory=dict)
    driver_version: str | None = None
    unready: bool = False


@dataclass(frozen=True)
class Fleet:
    """Everything that a deploy needs to know, checked, with the plan of each service."""

    name: str
    settings: FleetSettings
    hosts: tuple[Host, ...]
    plans: tuple[Plan, ...]

    @property
    def plan(self) -> Plan:
        """The plan of the service that the fleet serves."""
        return self.plans[0]

    @property
    def service(self) -> ServiceSettings:
        """The service that the fleet serves."""
        return self.settings.services[0]

    @property
    def addresses(self) -> dict[str, str]:
        """IP address of each host by its name."""
        return {host.name: host.address for host in self.hosts}

    @property
    def drained(self) -> frozenset[str]:
        """Names of the hosts that are declared drained."""
        return frozenset(host.name for host in self.hosts if host.drained)

    def having(self, role: str) -> tuple[Host, ...]:
        """The hosts of one role, in the inventory's order."""
        return tuple(host for host in self.hosts if role in host.roles)

    def host(self, name: str) -> Host:
        """One host by its name; KeyError where the inventory has none."""
        return {host.name: host for host in self.hosts}[name]


def build(declaration: Declaration, secrets: bool = True, hardware: bool = True) -> Fleet:
    """Check a whole declaration and plan it.

    Without `secrets` the files that hold keys may be missing: a plan can be reviewed without them.
    Without `hardware` the GPUs of a host may be unknown, as before they are first recorded; nothing
    is planned then. Raises DeclarationError with every problem found, each with its path and what
    to do.
    """
    problems: list[str] = []
    settings = _parsed(FleetSettings, declaration.fleet, "", problems, secrets)
    hosts = [
        _host(name, declared, declaration, problems, secrets)
        for name, declared in declaration.hosts.items()
    ]
    good = tuple(host for host in hosts if host is not None)
    if len(good) == len(hosts):
        wanted = ROLES
        if settings is not None and all(one.single_endpoint for one in settings.services):
            wanted = (GPU_HOSTS,)
        problems += [*_roles_missing(good, wanted), *_shared_addresses(good)]
    if settings is None or problems:
        raise DeclarationError(declaration.name, problems)
    unknown = [host.name for host in good if GPU_HOSTS in host.roles and not host.hardware]
    if unknown and not hardware:
        return Fleet(declaration.name, settings, good, _no_plans(settings))
    problems += [_undiscovered(name) for name in unknown]
    plans = _plans(settings, good, problems)
    problems += [*_fits_nowhere(plans), *_port_clashes(settings, good, plans)]
    if problems:
        raise DeclarationError(declaration.name, problems)
    return Fleet(declaration.name, settings, good, plans)


def replanned(fleet: Fleet, name: str, interconnect: tuple[LinkVerdict, ...]) -> HostPlan:
    """One host's plan, had it these verdicts of its links; ValueError where there is none."""
    hosts = tuple(
        replace(host, hardware=replace(host.hardware, interconnect=interconnect))
        if host.name == name and host.hardware
        else host
        for host in fleet.hosts
    )
    problems: list[str] = []
    plans = _plans(fleet.settings, hosts, problems)
    plan = None if problems else plans[0].on(name)
    if plan is None:
        raise ValueError("; ".join(problems) or f"{name} has no GPUs")
    return plan


def _parsed(
    kind: type[Settings],
    data: Mapping[str, Any],
    where: str,
    problems: list[str],
    secrets: bool = True,
) -> Settings | None:
    try:
        return kind.model_validate(dict(data), context={"secrets": secrets})
    except ValidationError as error:
        problems += problems_of(error, kind, where)
        return None


def _host(
    name: str,
    declared: DeclaredHost,
    declaration: Declaration,
    problems: list[str],
    secrets: bool,
) -> Host | None:
    where = f"hosts[{name}]"
    if not HOST_NAME.fullmatch(name):
        problems.append(f"hosts[{name!r}]: use letters, digits, '.', '_' and '-' in a host's name")
        return None
    roles = declared.groups & set(ROLES)
    if not roles:
        problems.append(f"{where}: is in no role; put it into {' or '.join(ROLES)}")
    settings = _parsed(HostSettings, declared.data, where, problems)
    if settings is None:
        return None
    own = _own_settings(settings, declaration.fleet, where, problems, secrets)
    hardware = _hardware(settings, declaration.recorded.get(name), roles, own, where, problems)
    address = _address(settings, declared.reached_by, where, problems)
    if own is None or address is None:
        return None
    if hardware is not None:
        own = _for_cards(own, settings, hardware)
        _check_driver(own, settings, hardware, where, problems)
    return Host(
        name,
        roles,
        address,
        hardware,
        *own,
        settings.drained,
        settings.ports,
        settings.price_per_month,
        settings.pinned_gpus,
        settings.network_gbit_s,
    )


def _own_settings(
    settings: HostSettings, fleet: Mapping[str, Any], where: str, problems: list[str], secrets: bool
) -> OwnSettings | None:
    """What holds on one host of the settings that may differ there; None where any is wrong."""

    def own(kind: type[Settings], name: str) -> Settings | None:
        differs = getattr(settings, name)
        return _own(kind, fleet.get(name), differs, f"{where}.{name}", problems, secrets)

    engine, driver = own(EngineSettings, "engine"), own(DriverSettings, "driver")
    tuning = own(TuningSettings, "tuning")
    if engine is None or driver is None or tuning is None:
        return None
    return engine, driver, tuning


def _for_cards(own: OwnSettings, settings: HostSettings, hardware: Hardware) -> OwnSettings:
    """The settings without what the fleet says of NVIDIA's driver, on a host with AMD's cards."""
    if not is_amd(hardware.gpus):
        return own
    engine, driver, tuning = own
    nvidia = {"branch": None, "version": None, "kernel_modules": "auto", "packaging": "auto"}
    left = {key: value for key, value in nvidia.items() if key not in settings.driver}
    return engine, driver.model_copy(update=left), tuning


def _check_driver(
    own: OwnSettings, settings: HostSettings, hardware: Hardware, where: str, problems: list[str]
) -> None:
    """Note why the driver that is declared cannot be had for a host's GPUs."""
    engine, driver, tuning = own
    if tuning.power_limit_w is not None and is_amd(hardware.gpus):
        problems.append(
            f"{where}.tuning.power_limit_w: is set by nvidia-smi, and the GPUs are AMD's; leave it "
            "out"
        )
    for problem in problems_of_declaration(driver, engine_needs(engine), hardware.gpus):
        # What the fleet declares is wrong once, not on each host.
        shared = problem.startswith("driver.") and not settings.driver
        told = problem if shared else f"{where}.{problem}"
        problems += [] if told in problems else [told]


def _own(
    kind: type[Settings],
    fleet: Any,
    own: Mapping[str, Any],
    where: str,
    problems: list[str],
    secrets: bool,
) -> Settings | None:
    """A role's settings on a host; what is wrong with the fleet's is named there, not here."""
    found: list[str] = []
    base = fleet if isinstance(fleet, Mapping) else {}
    settings = _parsed(kind, merged(base, own), where, found, secrets)
    problems += found if own else []
    return settings


def _hardware(
    settings: HostSettings,
    entry: Any,
    roles: frozenset[str],
    own: OwnSettings | None,
    where: str,
    problems: list[str],
) -> Hardware | None:
    """The host's GPUs: as declared, with what is recorded of the same ones; else as recorded.

    Where MIG slices are declared, they are what the host will have.
    """
    mig = own[2].mig if own else None
    if GPU_HOSTS not in roles:
        if settings.gpus is not None:
            problems.append(f"{where}.gpus: the host is not in {GPU_HOSTS}; put it there")
        return None
    recorded, declared = _recorded(entry, where, problems), _declared(settings, where, problems)
    try:
        recorded = with_mig(recorded, mig) if recorded else None
        return completed(with_mig(declared, mig), recorded) if declared else recorded
    except ValueError as error:
        problems.append(f"{where}.tuning.{error}")
        return None


def _recorded(entry: Any, where: str, problems: list[str]) -> Hardware | None:
    try:
        return recorded_hardware(entry) if entry is not None else None
    except ValueError as error:
        problems.append(
            f"{where}: its recorded hardware cannot be read: {error}; delete the entry and record "
            "it again with deploys/discover.py"
        )
        return None


def _declared(settings: HostSettings, where: str, problems: list[str]) -> Hardware | None:
    if settings.gpus is None:
        if settings.links is not None:
            problems.append(f"{where}.links: declare gpus too, or leave links to what is recorded")
        return None
    try:
        return declared_hardware(settings.gpus, settings.links)
    except ValueError as error:
        problems.append(f"{where}.gpus: {error}")
        return None


def _address(
    settings: HostSettings, reached_by: str, where: str, problems: list[str]
) -> str | None:
    if settings.address is not None:
        return str(settings.address)
    if reached_by == "@local":
        return "127.0.0.1"
    try:
        return str(ip_address(reached_by))
    except ValueError:
        problems.append(
            f"{where}.address: {reached_by!r} is no IP address; give the one by which the "
            "balancers and the GPU hosts reach each other"
        )
        return None


def _roles_missing(hosts: tuple[Host, ...], wanted: tuple[str, ...]) -> Iterator[str]:
    for role in wanted:
        if hosts and not any(role in host.roles for host in hosts):
            yield f"{role}: no host is in this group; add one"


def _shared_addresses(hosts: tuple[Host, ...]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for host in hosts:
        if host.address in seen:
            yield (
                f"hosts[{host.name}].address: {host.address} is also that of "
                f"{seen[host.address]}; give each host its own"
            )
        seen.setdefault(host.address, host.name)


def _plans(
    settings: FleetSettings, hosts: tuple[Host, ...], problems: list[str]
) -> tuple[Plan, ...]:
    hardware = {host.name: host.hardware for host in hosts if host.hardware is not None}
    ports = {host.name: host.ports for host in hosts if host.ports is not None}
    prices = {h.name: h.price_per_month for h in hosts if h.price_per_month is not None}
    pinned = {host.name: host.pinned_gpus for host in hosts if host.pinned_gpus}
    speeds = {h.name: h.network_gbit_s for h in hosts if h.network_gbit_s is not None}
    try:
        return plan_services(settings.services, hardware, ports, prices, pinned, speeds)
    except ValueError as error:
        problems += str(error).splitlines()
        return _no_plans(settings)


def _no_plans(settings: FleetSettings) -> tuple[Plan, ...]:
    return tuple(Plan(service.name, service.model.id, ()) for service in settings.services)


def _undiscovered(name: str) -> str:
    return (
        f"hosts[{name}].gpus: are neither declared nor recorded; record them with "
        'deploys/discover.py, or declare them, for instance "2x NVIDIA L40S"'
    )


def _fits_nowhere(plans: tuple[Plan, ...]) -> Iterator[str]:
    for number, plan in enumerate(plans):
        where = f"services[{number}].model"
        if not plan.hosts or plan.replicas:
            continue
        reasons = dict.fromkeys(reason for host in plan.hosts for reason in host.reasons[-1:])
        told = "; ".join(reasons) or "it gets no GPU; give it a share or pinned_gpus"
        yield f"{where}: {plan.model} fits no host: {told}"
        for cluster in plan.clusters:
            words = cluster_words(cluster)
            yield f"{where}: would fit {words}; clusters are planned, not deployed yet"
        for problem in plan.cluster_problems:
            yield f"{where}: {problem}"


def _port_clashes(
    settings: FleetSettings, hosts: tuple[Host, ...], plans: tuple[Plan, ...]
) -> Iterator[str]:
    for host in hosts:
        taken: dict[int, str] = {}
        if BALANCERS in host.roles:
            taken[settings.balancer.port] = "the balancer"
        own = [plan.on(host.name) for plan in plans]
        for replica in (replica for plan in own if plan for replica in plan.replicas):
            if not 1024 <= replica.port <= 65535:
                yield f"hosts[{host.name}].ports: {replica.port} is outside 1024-65535"
            if replica.port in taken:
                yield (
                    f"hosts[{host.name}].ports: {replica.name} and {taken[replica.port]} would "
                    f"both listen on {replica.port}; set ports of the host, or another "
                    "services[].first_port"
                )
            taken.setdefault(replica.port, replica.name)
