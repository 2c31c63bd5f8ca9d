"""What a deploy will need of one host, from what is declared and planned. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from roles.driver import DriverSettings
from roles.engine import Build, EngineNeeds, engine_needs, strictest
from roles.hardware import Hardware
from roles.host.paths import CACHE, engine_folder
from roles.models import Model, weights_per_gpu
from roles.plan import Replica
from roles.topology import ServiceSettings

PYPI = "https://pypi.org/simple"


@dataclass(frozen=True)
class Weights:
    """Weights that engines load: a folder on the host, or a name on a hub and its cache there.

    `size_bytes` are those of the checkpoint, as far as its shapes tell. `hub` is None for a folder,
    and where the engine is told to stay offline; `hub_token` says whether the engine has one.
    """

    source: str
    size_bytes: int
    hub_folder: str | None = None
    hub: str | None = None
    hub_token: bool = False


@dataclass(frozen=True)
class EngineHost:
    """What the planned engines need, each and together.

    `ports` maps each planned port to its replica; `folders` are those that the engines' builds are
    installed in. `most_gpus` is the number of GPUs of the largest replica, `shm_gib` the size of
    /dev/shm that is set (None: the tuning's own).
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

    @cached_property
    def needs(self) -> EngineNeeds:
        """What a host needs that runs them all."""
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
        """Of the engines on one Python the one that needs the newest."""
        own = [
            engine
            for engine in self.engines
            if any(index.python == python for index in engine.package_indexes)
        ]
        return max(own, key=lambda engine: engine.python or ())


@dataclass(frozen=True)
class BalancerHost:
    """What a balancer needs beside a system: `ports` by the setting that names each, and the
    packages that its role installs."""

    ports: Mapping[int, str]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class HostNeeds:
    """What a deploy needs of one host; None where it has no such role in it.

    `expected` are the GPUs that the inventory says; `driver` is what may be done where no driver
    answers that suits the engine. With `only_driver` the run ends with it: the engine says what
    driver it needs, and is not installed.
    """

    expected: Hardware | None = None
    driver: DriverSettings | None = None
    engine: EngineHost | None = None
    balancer: BalancerHost | None = None
    only_driver: bool = False

    @property
    def installed_engine(self) -> EngineHost | None:
        """What engines need where the run installs them."""
        return None if self.only_driver else self.engine


@dataclass(frozen=True)
class ServiceOnHost:
    """A service with its replicas on one host, and the build that runs them."""

    service: ServiceSettings
    build: Build
    replicas: tuple[Replica, ...] = field(default=())


def engine_host(
    builds: Sequence[Build],
    served: Sequence[ServiceOnHost],
    internal_ports: tuple[int, int] | None = None,
    shm_gib: int | None = None,
) -> EngineHost:
    """What engines of these builds need of a host that runs these replicas.

    `internal_ports` are the first and the last of those that replicas use among themselves.
    """
    replicas = [replica for one in served for replica in one.replicas]
    weights = (_weights(one.service, one.build) for one in served if one.replicas)
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
    )


def without_engine(needs: HostNeeds) -> HostNeeds:
    """The same host where a run ends with its driver, which must still suit the engine."""
    return replace(needs, only_driver=True, balancer=None)


def _weights(service: ServiceSettings, build: Build) -> Weights:
    """What a service's own build says of its weights; hubs and caches differ by build."""
    source = service.weights or service.model.name
    size = _size_bytes(service.model)
    if source.startswith("/"):
        return Weights(source, size)
    folder = f"{_hub_cache(build.environment)}/models--{source.replace('/', '--')}"
    return Weights(source, size, folder, build.hub, build.hub_token_file is not None)


def _size_bytes(model: Model) -> int:
    return model.weights_bytes or weights_per_gpu(model, 1)


def _hub_cache(environment: Mapping[str, str]) -> str:
    """Where huggingface_hub keeps what it loaded, by its own environment variables."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(name):
            return environment[name].rstrip("/")
    return f"{environment.get('HF_HOME', f'{CACHE}/hub').rstrip('/')}/hub"


def all_packages(needs: HostNeeds) -> Iterable[str]:
    """Packages of the distribution that a deploy will see to."""
    engine = needs.installed_engine.packages if needs.installed_engine else ()
    return dict.fromkeys((*engine, *(needs.balancer.packages if needs.balancer else ())))
