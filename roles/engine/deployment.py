"""The deployment interface of an engine: how it is installed, and how it runs replicas."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from roles.engine.build import Build
from roles.engine.needs import EngineNeeds
from roles.host.paths import CACHE, STATE, engine_folder
from roles.plan import Executor, Replica, Task

# The environment variable that restricts a process to its GPUs, by device.
VISIBLE_DEVICES = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "rocm": "HIP_VISIBLE_DEVICES",
    "cpu": "CUDA_VISIBLE_DEVICES",
}


@dataclass(frozen=True)
class Installation:
    """How a build is installed: a shell script that creates its folder, and its standard input.

    The folder is valid once its last file, `.complete`, exists. Other versions stay.
    """

    version_name: str
    packages: tuple[str, ...]
    script: str
    stdin: str = ""


@dataclass(frozen=True)
class ServedAdapter:
    """A LoRA adapter by the name that clients use, with its path on the hosts."""

    name: str
    path: str
    rank: int


@dataclass(frozen=True)
class Served:
    """What a replica serves: the model name that clients use, the source of its weights (for the
    model hub also the commit, None for the newest), and the number of longest requests that it must
    hold. `task` is what its replicas do."""

    model: str
    weights: str
    min_concurrency: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)
    kv_cache_memory_bytes: int | None = None
    revision: str | None = None
    task: Task = "generate"
    adapters: tuple[ServedAdapter, ...] = ()


@dataclass(frozen=True)
class Group:
    """What a part of a replica over several hosts must know of the others.

    `addresses` are those of its hosts by rank; the first is the head's. `first_port` is the first
    of the head's ports, by which all its hosts know them.
    `gpus` is the number of GPUs of each host.
    """

    rank: int
    addresses: tuple[str, ...]
    first_port: int
    gpus: int
    executor: Executor = "engine"

    @property
    def head(self) -> str:
        """The head's address."""
        return self.addresses[0]

    @property
    def address(self) -> str:
        """The address of this part's host."""
        return self.addresses[self.rank]

    @property
    def engines_port(self) -> int:
        """Where the head's engine takes those of the others."""
        return self.first_port + 50

    @property
    def meeting_port(self) -> int:
        """Where the head takes the other parts before any engine starts."""
        return self.first_port + 99


@dataclass(frozen=True)
class Placement:
    """The host's part in how a replica starts.

    `devices` maps a GPU of the plan to CUDA's name for it if that is not its index, as for slices.
    `internal_port` is the first port that the replica's processes use among themselves. `card` is
    the kind of its GPUs, as a part of a path. `group` is None for a replica of one host.
    """

    listen_address: str
    internal_port: int
    drain_timeout_s: int
    devices: Mapping[int, str] = field(default_factory=dict)
    card: str = ""
    group: Group | None = None


# What a replica recognises in what its model writes.
Ability = Literal["tool_call", "reasoning"]


def parser_abilities(served: Served) -> tuple[Ability, ...]:
    """What the parsers recognise that a service's options name, for engines that call them so."""
    options: dict[str, Ability] = {"tool-call-parser": "tool_call", "reasoning-parser": "reasoning"}
    named = {option for option in options if served.arguments.get(option) not in (None, "none")}
    return tuple(options[option] for option in options if option in named)


def own_environment(replica: Replica, build: Build, placement: Placement) -> dict[str, str]:
    """The environment of every engine: its GPUs and its home folder."""
    devices = placement.devices
    return {
        VISIBLE_DEVICES[build.device]: ",".join(devices.get(i, str(i)) for i in replica.gpus),
        # Otherwise mixed cards are numbered by speed, not as nvidia-smi and the plan do.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HOME": f"{STATE}/{replica.name}",
    }


# How processes of one host alone find each other.
LOOPBACK = "127.0.0.1"
# The variables that name an interface, and how: a name alone is a prefix to NCCL.
INTERFACES = {"GLOO_SOCKET_IFNAME": "{}", "NCCL_SOCKET_IFNAME": "={}"}


def address_environment(variable: str, placement: Placement) -> dict[str, str]:
    """The variable by which a replica's processes have the address of their host alone; none for a
    part of a group, whose host sets it as it starts."""
    return {} if placement.group else {variable: LOOPBACK}


def packages_environment(replica: Replica, build: Build, placement: Placement) -> dict[str, str]:
    """The environment of engines of Python packages, whose processes communicate on this host alone
    unless they are a part of a group; see `address_environment`."""
    folder = engine_folder(build.version_name)
    return {
        **own_environment(replica, build, placement),
        "HF_HOME": f"{CACHE}/hub",
        "TRITON_CACHE_DIR": f"{compiled_folder(replica, build, placement)}/triton",
        **({} if placement.group else dict.fromkeys(INTERFACES, "lo")),
        **({} if replica.p2p else {"NCCL_P2P_DISABLE": "1"}),
        "PATH": f"{folder}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
    }


def compiled_folder(replica: Replica, build: Build, placement: Placement) -> str:
    """Where a replica keeps what it compiles: that is of one version and one kind of card. A deploy
    removes those that no start names any more."""
    kept = "-".join(filter(None, (build.version_name, placement.card)))
    return f"{CACHE}/{replica.name}/{kept}"


@dataclass(frozen=True)
class KeyFile:
    """The file of the keys that a replica accepts, written by the host, one line a key.

    The lines follow the text of `Start.files` with the same name; `{}` in `line` is the key.
    `several`: the file may have the old key and the new one while a rolling update changes it.
    """

    name: str
    line: str
    several: bool = True


@dataclass(frozen=True)
class Busy:
    """Gauges that count the running requests of a replica whose engine has no drain of its own."""

    path: str
    gauges: tuple[str, ...]


@dataclass(frozen=True)
class Watch:
    """What shows, on a page of metrics, that a replica works.

    `steps` are counters of which one rises with each step of the engine, `pending` gauges of the
    requests that run or wait; each is summed over its labels. `keyed`: the page asks for the key.
    `slots`: the page is llama-server's list of slots, of a process that the replica's program
    started itself; each answer while one of them works is a step.
    """

    path: str
    steps: tuple[str, ...]
    pending: tuple[str, ...]
    keyed: bool = False
    slots: bool = False


@dataclass(frozen=True)
class Phase:
    """A line of an engine's log by which a starting replica says what it is at.

    `pattern` finds it in linear time; where it has a group, that is a measure, which stands in
    `words` for `{}`: "load {}%".
    """

    pattern: str
    words: str


@dataclass(frozen=True)
class Start:
    """Everything about the engine that decides how a replica starts.

    `command` is a sh line with the engine's program and options. Its working directory is the
    folder with `files`, which anybody on the host may read. `secrets` are environment variables
    that only root may read from disk. `address_variables` and `interface_variables` are set on the
    host, to its own address and its interface (`{}`), for a part of a replica over several hosts.
    `credentials` are names of files (of `files` or the key file)
    that only the process reads, from `$CREDENTIALS_DIRECTORY`. `unit` are additional lines of the
    unit's section Service. `phases` are what its log says while it starts, and `listens_first` is
    for an engine that takes connections before it can answer, so that only its log tells. `watch`
    is what its metrics say while it serves. These three change nothing of how it starts.
    """

    command: str
    environment: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    address_variables: tuple[str, ...] = ()
    interface_variables: Mapping[str, str] = field(default_factory=dict)
    credentials: tuple[str, ...] = ()
    key_file: KeyFile | None = None
    unit: tuple[str, ...] = ()
    busy: Busy | None = None
    phases: tuple[Phase, ...] = ()
    listens_first: bool = False
    watch: Watch | None = None


class Deployment(Protocol):
    """The deployment interface of an engine. Its methods are pure: settings in, data out."""

    @property
    def build(self) -> type[Build]:
        """The settings class of this engine's builds."""
        ...

    @property
    def ready_path(self) -> str:
        """What a replica answers with a status of 2xx, without a key, once it serves: until then it
        takes no connection, or answers 503."""
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

    def abilities(self, served: Served) -> tuple[Ability, ...]:
        """What replicas of a service must recognise in what its model writes."""
        ...

    def adapter_model(self, model: str, adapter: str) -> str:
        """The name of a model by which a client asks for one of its adapters."""
        ...

    def all_reduce_python(self, build: Any) -> str | None:
        """A Python on the host with torch, to measure GPUs the way this engine's collectives use
        them; None if the engine uses no collectives."""
        ...
