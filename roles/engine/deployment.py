"""What an engine must offer to be installed and to run replicas: its deploying half."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from roles.engine.build import Build
from roles.engine.needs import EngineNeeds
from roles.host.paths import STATE
from roles.plan import Replica

# How each device is told which GPUs are a process's own.
VISIBLE_DEVICES = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "rocm": "HIP_VISIBLE_DEVICES",
    "cpu": "CUDA_VISIBLE_DEVICES",
}


@dataclass(frozen=True)
class Installation:
    """How a build comes onto a host: a shell script that makes its folder, and its standard input.

    The folder counts once its last file, `.complete`, is there; other versions stay.
    """

    version_name: str
    packages: tuple[str, ...]
    script: str
    stdin: str = ""


@dataclass(frozen=True)
class Served:
    """What a replica serves: the name that clients ask for, where its weights come from (on the
    model hub at which commit, None for the newest), and for how many requests of the longest kind
    it must have room."""

    model: str
    weights: str
    min_concurrency: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)
    kv_cache_memory_bytes: int | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Placement:
    """What of a replica's host decides how it starts.

    `devices` is what CUDA calls a GPU of the plan where that is not its index, as with slices;
    `internal_port` is the first of the ports that its processes use among themselves.
    """

    listen_address: str
    internal_port: int
    drain_timeout_s: int
    devices: Mapping[int, str] = field(default_factory=dict)


def own_environment(replica: Replica, build: Build, placement: Placement) -> dict[str, str]:
    """What every engine is told: which GPUs are its own, and where its home is."""
    devices = placement.devices
    return {
        VISIBLE_DEVICES[build.device]: ",".join(devices.get(i, str(i)) for i in replica.gpus),
        # Otherwise mixed cards are numbered by speed, not as nvidia-smi and the plan do.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HOME": f"{STATE}/{replica.name}",
    }


@dataclass(frozen=True)
class KeyFile:
    """A file into which the host writes the keys that a replica accepts, after `Start.files` of
    the same name: one line a key, in which `{}` stands for it.

    `several`: it may name the old key besides the new one, while a rolling update changes it.
    """

    name: str
    line: str
    several: bool = True


@dataclass(frozen=True)
class Busy:
    """Gauges by which a replica without a drain of its own says how many requests it works on."""

    path: str
    gauges: tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """All of one engine that decides how a replica starts.

    `command` is a line of sh that ends in the engine's program and options; its working directory
    is the folder with `files`, which anybody on the host may read. `secrets` are environment
    variables that only root reads from disk. `credentials` are names of files (of `files` or the
    key file) that the process reads from `$CREDENTIALS_DIRECTORY`, and nobody else from disk.
    `unit` are lines of the unit's section Service that this engine needs.
    """

    command: str
    environment: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: tuple[str, ...] = ()
    key_file: KeyFile | None = None
    unit: tuple[str, ...] = ()
    busy: Busy | None = None


class Deployment(Protocol):
    """The deploying half of an engine. Everything is pure: settings in, data out."""

    @property
    def build(self) -> type[Build]:
        """What an inventory may say about this engine."""
        ...

    def needs(self, build: Any) -> EngineNeeds:
        """What a build needs of a host."""
        ...

    def installation(self, build: Any) -> Installation:
        """How a build is installed."""
        ...

    def start(self, replica: Replica, served: Served, build: Any, placement: Placement) -> Start:
        """How a replica starts."""
        ...

    def all_reduce_python(self, build: Any) -> str | None:
        """A Python on the host with torch, by which GPUs are measured as this engine's
        collectives use them; None where its GPUs do not work together so."""
        ...
