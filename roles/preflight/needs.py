"""What a deploy will need of one host, derived from the inventory and the plan. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from roles.driver import DriverSettings
from roles.engine import Build, EngineNeeds, engine_needs, strictest
from roles.hardware import Hardware
from roles.host.paths import ADAPTERS, engine_folder
from roles.models import Model, weights_per_gpu
from roles.plan import Replica
from roles.topology import ServiceSettings

PYPI = "https://pypi.org/simple"


@dataclass(frozen=True)
class Weights:
    """Weights that engines load: a folder on the host, or a name on a hub and its cache there.

    `size_bytes` is the size of the checkpoint, estimated from its shapes. `hub` is None for a
    folder, and where the engine is set to stay offline; `hub_token` says whether the engine has a
    token for it, and `hub_page` is the path of a page that tells whether it has the model.
    `copy_folder` is where the engine keeps a copy of a file on the host, None where it keeps none.
    `setting` is what names another source.
    """

    source: str
    size_bytes: int
    hub_folder: str | None = None
    hub: str | None = None
    hub_token: bool = False
    hub_page: str = ""
    copy_folder: str | None = None
    setting: str = field(default="services[].weights", compare=False)

    @property
    def kept_in(self) -> str | None:
        """Where a deploy writes them on the host; None where they are read where they are."""
        return self.hub_folder or self.copy_folder


@dataclass(frozen=True)
class EngineHost:
    """What the planned engines need of a host.

    `ports` maps each planned port to its replica, `folders` are where the engines' builds are
    installed. `most_gpus` is the number of GPUs of the largest replica, `shm_gib` the declared size
    of /dev/shm (None: the tuning decides). `adapters` maps the folders of LoRA adapters, which a
    deploy copies to the host, to their bytes. `given_ports` are the first and the last port that
    the kernel may give to who names none, None without a part of a replica over several hosts.
    """

    engines: tuple[EngineNeeds, ...]
    folders: tuple[str, ...]
    packages: tuple[str, ...]
    weights: tuple[Weights, ...]
    ports: Mapping[int, str]
    internal_ports: tuple[int, int] | None
    most_gpus: int
    replicas: int
    shm_gib: int | None = None
    adapters: Mapping[str, int] = field(default_factory=dict)
    given_ports: tuple[int, int] | None = None

    @cached_property
    def needs(self) -> EngineNeeds:
        """The needs of a host that runs all these engines: of each the strictest."""
        return strictest(self.engines)

    @property
    def device(self) -> str:
        """What engines compute on."""
        return self.needs.device

    @property
    def pythons(self) -> tuple[str, ...]:
        """The host's Pythons that engines are installed with."""
        return tuple(dict.fromkeys(index.python for index in self.needs.package_indexes))

    @property
    def wheel_folders(self) -> tuple[str, ...]:
        """The folders on the host that engines' wheels come from."""
        houses = (index.wheelhouse for index in self.needs.package_indexes)
        return tuple(dict.fromkeys(one for one in houses if one and one.startswith("/")))

    def most_demanding(self, python: str) -> EngineNeeds:
        """Of the engines that use one Python, the one that needs the newest version of it."""
        own = [
            engine
            for engine in self.engines
            if any(index.python == python for index in engine.package_indexes)
        ]
        return max(own, key=lambda engine: engine.python or ())


@dataclass(frozen=True)
class BalancerHost:
    """What a balancer needs of its host: packages, and ports by the settings that name them.

    `program` is the name of its processes. `sites` has the file that each program serves by that
    could be our balancer. SELinux lets it connect to engines by `selinux_boolean`.
    """

    ports: Mapping[int, str]
    packages: tuple[str, ...]
    program: str
    sites: Mapping[str, str]
    selinux_boolean: str


@dataclass(frozen=True)
class HostNeeds:
    """What a deploy needs of one host; a field is None where the host has no such role.

    `expected` is the hardware in the inventory, `driver` the settings of the driver. With
    `only_driver` the run ends after the driver stage: the engine decides which driver is needed,
    and is not installed.
    """

    expected: Hardware | None = None
    driver: DriverSettings | None = None
    engine: EngineHost | None = None
    balancer: BalancerHost | None = None
    only_driver: bool = False

    @property
    def installed_engine(self) -> EngineHost | None:
        """What the engines need; None where the run does not install them."""
        return None if self.only_driver else self.engine


@dataclass(frozen=True)
class ServiceOnHost:
    """A service's replicas on one host, with the engine's build that runs them."""

    service: ServiceSettings
    build: Build
    replicas: tuple[Replica, ...] = field(default=())


def engine_host(
    builds: Sequence[Build],
    served: Sequence[ServiceOnHost],
    internal_ports: tuple[int, int] | None = None,
    shm_gib: int | None = None,
    given_ports: tuple[int, int] | None = None,
) -> EngineHost:
    """What engines of these builds need of a host that runs these replicas.

    `internal_ports` are the first and the last port that the processes of replicas use among
    themselves, `given_ports` those that the kernel gives and the firewall closes beside a part of a
    replica over several hosts.
    """
    replicas = [replica for one in served for replica in one.replicas]
    used = [one for one in served if one.replicas]
    weights = (each for one in used for each in _all_weights(one.service, one.build))
    adapters = (each for one in used for each in one.service.lora_adapters.values())
    return EngineHost(
        engines=tuple(map(engine_needs, builds)),
        folders=tuple(engine_folder(build.version_name) for build in builds),
        packages=tuple(dict.fromkeys(one for build in builds for one in build.system_packages)),
        weights=tuple(dict.fromkeys(weights)),
        ports={replica.port: replica.name for replica in replicas},
        internal_ports=internal_ports if replicas else None,
        most_gpus=max((len(replica.gpus) for replica in replicas), default=0),
        replicas=len(replicas),
        shm_gib=shm_gib,
        given_ports=given_ports if any(one.members for one in replicas) else None,
        adapters={f"{ADAPTERS}/{each.digest}": each.bytes for each in adapters},
    )


def without_engine(needs: HostNeeds) -> HostNeeds:
    """The needs of a host in a run that ends after the driver stage."""
    return replace(needs, only_driver=True, balancer=None)


def _all_weights(service: ServiceSettings, build: Build) -> Iterator[Weights]:
    """The weights of a service's model, and of the model that drafts for it."""
    yield _weights(service.weights or service.model.name, service.model, build)
    drafts = service.speculative
    if drafts is not None and drafts.model is not None:
        found = _weights(drafts.weights or drafts.model.name, drafts.model, build)
        yield replace(found, setting="services[].speculative.weights")


def _weights(source: str, model: Model, build: Build) -> Weights:
    """Where a model's weights come from; hub and cache depend on the engine's build."""
    size = _size_bytes(model)
    if source.startswith("/"):
        return Weights(source, size, copy_folder=build.copy_folder(source))
    token = build.hub_token_file is not None
    hub, page = build.hub_page(source)
    return Weights(source, size, build.hub_folder(source), hub, token, page)


def _size_bytes(model: Model) -> int:
    return model.weights_bytes or weights_per_gpu(model, 1)


def all_packages(needs: HostNeeds) -> Iterable[str]:
    """The distribution's packages that a deploy will install."""
    engine = needs.installed_engine.packages if needs.installed_engine else ()
    return dict.fromkeys((*engine, *(needs.balancer.packages if needs.balancer else ())))
