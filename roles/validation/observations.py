"""What validation observes on a host, read from the JSON of the host program. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from roles.engine import Ability
from roles.hardware import readings
from roles.plan import Task

# Bounds of the numbers that a host may report, as sums and rates are computed from them.
Amount = Annotated[int, Field(ge=0, lt=2**53)]
Seconds = Annotated[float, Field(ge=0, lt=1e9, allow_inf_nan=False)]
_MAX_SAMPLES = 5000
# Model lengths from which a replica is asked for a tool call and for reasoning: the question with
# its tool, and the 512 tokens of an answer, must fit into any model's chat template.
RECOGNITION_TOKENS = 2048


@dataclass(frozen=True)
class Endpoint:
    """The planned endpoint of a service.

    `base_url` is what clients call (`https://10.99.0.10`), `model` the served name, `upstreams` the
    `ADDRESS:PORT` of each replica behind it, `balancer` the kind of its program, `task`
    what it is asked for.
    """

    base_url: str
    model: str
    upstreams: tuple[str, ...]
    balancer: str
    task: Task = "generate"


@dataclass(frozen=True)
class PlannedReplica:
    """A replica as validation must find it.

    `unit` is its systemd unit, `base_url` its URL on its own host (`http://127.0.0.1:8001`),
    `model` the name under which it serves, `gpus` the driver's indexes. Of the GPUs in `sliced` it
    has only a MIG slice, so other replicas may use them too. A layer split counts as pipeline
    parallel, as its GPUs take turns. `abilities` are what it must recognise in what its model
    writes. `task` is what it does, and `embedding_size` the length of a vector. `adapters` are its
    LoRA adapters, each with the name by which a client asks for it. `key` is the one that its
    engine expects.
    """

    name: str
    unit: str
    base_url: str
    model: str
    gpus: tuple[int, ...]
    tensor_parallel: int
    pipeline_parallel: int = 1
    sliced: tuple[int, ...] = ()
    abilities: tuple[Ability, ...] = ()
    task: Task = "generate"
    embedding_size: int = 0
    adapters: Mapping[str, str] = field(default_factory=dict)
    key: str = field(default="", repr=False)


@dataclass(frozen=True)
class Completion:
    """The outcome of one chat completion, or of what stands for one.

    `length` is that of a vector, `order` the indexes of the documents, the best first. `replica` is
    the header by which a balancer names the upstream that answered.
    """

    ok: bool
    error: str = ""
    status: Amount | None = None
    seconds: Seconds | None = None
    tokens: Amount | None = None
    chunks: Amount | None = None
    model: str | None = None
    fingerprint: str | None = None
    replica: str | None = None
    length: Amount | None = None
    order: Sequence[Amount] = ()


@dataclass(frozen=True)
class Recognition:
    """What an engine recognised in an answer that should hold a tool call, or reasoning.

    `found` is what it recognised, "" for nothing; `text` is the answer's text, and `marked` says
    that marks of the model stand in it, which a fitting parser takes out.
    """

    ok: bool
    error: str = ""
    status: Amount | None = None
    found: str = ""
    text: str = ""
    marked: bool = False


@dataclass(frozen=True)
class LoadResult:
    """What a replica did under load; `error` is the first error."""

    completed: Amount
    failed: Amount
    tokens: Amount
    seconds: Seconds
    error: str = ""


@dataclass(frozen=True)
class UnitStatus:
    """A systemd unit at one moment; `main_pid` is 0 where it has no process."""

    active: str
    main_pid: int
    restarts: int


@dataclass(frozen=True)
class GpuProcess:
    """A compute process on a GPU; `cgroup` is its /proc/PID/cgroup.

    `cgroup` is None where the host cannot see the process, as in a container or under WSL.
    """

    pid: str
    name: str
    memory_mib: int | None
    cgroup: str | None

    @property
    def unit(self) -> str | None:
        """The systemd unit of the process (under cgroup v1 and v2)."""
        parts = (self.cgroup or "").replace("\n", "/").split("/")
        units = [part for part in parts if part.endswith((".service", ".scope"))]
        # Units nest where a host is itself a container: the innermost is the host's own.
        return units[-1] if units else None

    def belongs_to(self, unit: str) -> bool:
        """Whether the process is in the unit's control group or in one below it."""
        return any(unit in line.split("/") for line in (self.cgroup or "").splitlines())


@dataclass(frozen=True)
class GpuUse:
    """A GPU's memory and processes after the completions, and its utilization under load."""

    memory_mib: int | None
    processes: tuple[GpuProcess, ...] = ()
    utilization_percent: tuple[int, ...] = ()


@dataclass(frozen=True)
class HostObservations:
    """Everything that was observed on one host, by replica name, unit name or GPU index.

    `models` are the names that a replica says it serves, empty where it does not say. `adapted` has
    a replica's completions by LoRA adapter, `recognised` its answers by ability. `gpu_tool` is the
    program that reads its GPUs. `gpu_error` says why GPUs could not be read, `process_error` why
    their processes could not. `unfinished` says why the program ended early.
    """

    completions: Mapping[str, Completion] = field(default_factory=dict)
    models: Mapping[str, Sequence[str]] = field(default_factory=dict)
    streams: Mapping[str, Completion] = field(default_factory=dict)
    adapted: Mapping[str, Mapping[str, Completion]] = field(default_factory=dict)
    recognised: Mapping[str, Mapping[str, Recognition]] = field(default_factory=dict)
    loads: Mapping[str, LoadResult] = field(default_factory=dict)
    before: Mapping[str, UnitStatus] = field(default_factory=dict)
    after: Mapping[str, UnitStatus] = field(default_factory=dict)
    gpus: Mapping[int, GpuUse] = field(default_factory=dict)
    gpu_tool: str = "its GPUs' tool"
    gpu_error: str = ""
    process_error: str = ""
    unfinished: str = ""


def completion_of(data: Mapping[str, Any]) -> Completion:
    """The completion in a dict of `roles.host.probe`; unknown keys are ignored."""
    known = {key: data[key] for key in Completion.__dataclass_fields__ if key in data}
    return Completion(**known)


@dataclass(frozen=True)
class _Printed:
    """The JSON of the host program; what it did not get to is empty."""

    vendor: str = ""
    gpus: Mapping[str, readings.Output] = field(default_factory=dict)
    cgroups: Mapping[str, str | None] = field(default_factory=dict)
    samples: Annotated[Sequence[str], Field(max_length=_MAX_SAMPLES)] = ()
    completions: Mapping[str, Completion] = field(default_factory=dict)
    models: Mapping[str, Sequence[str]] = field(default_factory=dict)
    streams: Mapping[str, Completion] = field(default_factory=dict)
    adapted: Mapping[str, Mapping[str, Completion]] = field(default_factory=dict)
    recognised: Mapping[str, Mapping[str, Recognition]] = field(default_factory=dict)
    loads: Mapping[str, LoadResult] = field(default_factory=dict)
    units_before: Mapping[str, str] = field(default_factory=dict)
    units_after: Mapping[str, str] = field(default_factory=dict)
    unfinished: str = ""


def parse_observations(text: str) -> HostObservations:
    """Read the output of the host program; ValueError for any other text."""
    printed = TypeAdapter(_Printed).validate_json(text, strict=True)
    tool = readings.TOOLS.get(printed.vendor)
    found = readings.read(tool, printed.gpus) if tool else readings.Readings(error="not asked")
    samples = _samples(tool, printed.samples) if tool else {}
    return HostObservations(
        completions=printed.completions,
        models=printed.models,
        streams=printed.streams,
        adapted=printed.adapted,
        recognised=printed.recognised,
        loads=printed.loads,
        before={unit: parse_unit(text) for unit, text in printed.units_before.items()},
        after={unit: parse_unit(text) for unit, text in printed.units_after.items()},
        gpus=_gpus(found, printed.cgroups, samples),
        gpu_tool=tool.gpus[0] if tool else HostObservations.gpu_tool,
        gpu_error=found.error,
        process_error=found.process_error,
        unfinished=printed.unfinished,
    )


def parse_unit(text: str) -> UnitStatus:
    """A unit from the output of `systemctl show`; without properties it counts as not running."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return UnitStatus(
        active=values.get("ActiveState", "") or "unknown",
        main_pid=_number(values.get("MainPID", "")),
        restarts=_number(values.get("NRestarts", "")),
    )


def _number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,18}", text.strip()) else 0


def _gpus(
    found: readings.Readings,
    cgroups: Mapping[str, str | None],
    samples: Mapping[int, tuple[int, ...]],
) -> dict[int, GpuUse]:
    return {
        index: GpuUse(
            one.memory_mib,
            tuple(_process(process, cgroups) for process in one.processes),
            samples.get(index, ()),
        )
        for index, one in found.gpus.items()
    }


def _process(process: readings.GpuProcess, cgroups: Mapping[str, str | None]) -> GpuProcess:
    pid = "?" if process.pid is None else str(process.pid)
    return GpuProcess(pid, process.name, process.memory_mib, cgroups.get(pid))


def _samples(tool: readings.Tool, texts: Sequence[str]) -> dict[int, tuple[int, ...]]:
    """The utilization of each GPU in the order of the samples; unreadable samples are left out."""
    found: dict[int, list[int]] = {}
    for text in texts:
        for index, percent in readings.utilization(tool, text).items():
            found.setdefault(index, []).append(percent)
    return {index: tuple(percents) for index, percents in found.items()}
