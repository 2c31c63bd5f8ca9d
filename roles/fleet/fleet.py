"""A checked fleet with its plan: frozen types alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from roles.declaration import FleetSettings, Service
from roles.driver import DriverSettings
from roles.engine import Build, EngineNeeds, engine_needs, strictest
from roles.hardware import Hardware
from roles.plan import HostPlan, Plan, Replica
from roles.tuning import TuningSettings


@dataclass(frozen=True)
class Host:
    """A checked host: its roles, its address, and its GPUs where it has any.

    `engines` has the settings of each engine on this host, by the service's name and the engine's
    kind.
    `devices` maps a GPU's index to the name that CUDA knows it by, where that is another;
    `driver_version` is the version of the driver that reports the GPUs. Both are known once the
    host has answered. `unready` says that its driver has a fault that a deploy must repair. A
    `retired` host is not planned: its replicas are drained and taken down.
    """

    name: str
    roles: frozenset[str]
    address: str
    hardware: Hardware | None
    driver: DriverSettings
    tuning: TuningSettings
    engines: Mapping[tuple[str, str], Build] = field(default_factory=dict)
    drained: bool = False
    retired: bool = False
    ports: tuple[int, ...] | None = None
    price_per_month: float | None = None
    pinned_gpus: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    network_gbit_s: float | None = None
    devices: Mapping[int, str] = field(default_factory=dict)
    driver_version: str | None = None
    unready: bool = False
    own_members_address: str | None = None

    @property
    def members_address(self) -> str:
        """The address by which hosts of the same replica reach it."""
        return self.own_members_address or self.address


@dataclass(frozen=True)
class Fleet:
    """A checked inventory with the plan of each service.

    `plans` are in the order of the services in `settings`.
    """

    name: str
    settings: FleetSettings
    hosts: tuple[Host, ...]
    plans: tuple[Plan, ...]

    @cached_property
    def addresses(self) -> Mapping[str, str]:
        """IP address of each host by its name."""
        return {host.name: host.address for host in self.hosts}

    @cached_property
    def drained(self) -> frozenset[str]:
        """Names of the hosts that the inventory drains."""
        return frozenset(host.name for host in self.hosts if host.drained)

    @property
    def services(self) -> tuple[tuple[Service, Plan], ...]:
        """Each service with its plan."""
        return tuple(zip(self.settings.services, self.plans, strict=True))

    @cached_property
    def _hosts_by_name(self) -> Mapping[str, Host]:
        return {host.name: host for host in self.hosts}

    def with_role(self, role: str) -> tuple[Host, ...]:
        """The hosts of one role, in the inventory's order."""
        return tuple(host for host in self.hosts if role in host.roles)

    def host(self, name: str) -> Host:
        """One host by its name; KeyError where the inventory has none."""
        return self._hosts_by_name[name]

    def on(self, name: str) -> Iterator[tuple[Service, HostPlan]]:
        """Each service that has a plan for a host, with that plan.

        A retired host has an empty plan of each service.
        """
        retired = self.host(name).retired
        for service, plan in self.services:
            own = empty_plan(name) if retired else plan.on(name)
            if own is not None:
                yield service, own

    def serving(self, name: str) -> Iterator[tuple[Service, Build, tuple[Replica, ...]]]:
        """Each service as each of its engines serves it on a host, with the engine's build and its
        replicas there; none without replicas."""
        for service, plan in self.on(name):
            for kind in dict.fromkeys(replica.engine for replica in plan.placed):
                own = tuple(replica for replica in plan.placed if replica.engine == kind)
                yield service.served_by(kind), self.engine_of(name, service.name, kind), own

    def engines_on(self, name: str) -> tuple[Build, ...]:
        """The different builds of engines on a host: those of its replicas, or of all services if
        it has none."""
        wanted = [build for _, build, _ in self.serving(name)]
        found: list[Build] = []
        for settings in wanted or self.host(name).engines.values():
            found += [] if settings in found else [settings]
        return tuple(found)

    def needs_on(self, name: str) -> EngineNeeds:
        """What the driver and the GPUs of a host must offer to all of its engines."""
        return strictest([engine_needs(build) for build in self.engines_on(name)])

    def engine_of(self, host: str, service: str, kind: str) -> Build:
        """The settings of one of a service's engines on a host."""
        return self.host(host).engines[service, kind]


def empty_plan(host: str) -> HostPlan:
    """The empty plan of a retired host."""
    return HostPlan(host, (), (), (), ("the host is retired: nothing is to run on it",))
