"""What validation saw on a host, and how it is read from the host program's JSON."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from roles.hardware import readings


@dataclass(frozen=True)
class Endpoint:
    """A balancer as it is planned.

    `base_url` is what users call (`https://10.99.0.10`), `model` the served name, `upstreams` the
    `ADDRESS:PORT` of each replica behind it.
    """

    base_url: str
    model: str
    upstreams: tuple[str, ...]


@dataclass(frozen=True)
class PlannedReplica:
    """What validation must find of one replica.

    `unit` is its systemd unit, `base_url` its address on its own host (`http://127.0.0.1:8001`),
    `model` the name it is served under and `gpus` the driver's indices; `sliced` are those of which
    it has but a MIG slice, so that other replicas may be there too. A layer split
    counts as pipeline parallel: its GPUs take turns. `key` is what its engine expects.
    """

    name: str
    unit: str
    base_url: str
    model: str
    gpus: tuple[int, ...]
    tensor_parallel: int
    pipeline_parallel: int = 1
    sliced: tuple[int, ...] = ()
    key: str = field(default="", repr=False)


@dataclass(frozen=True)
class Answer:
    """The outcome of one chat completion; `replica` is the upstream that a balancer names."""

    ok: bool
    error: str = ""
    status: int | None = None
    seconds: float | None = None
    tokens: int | None = None
    chunks: int | None = None
    model: str | None = None
    fingerprint: str | None = None
    replica: str | None = None


@dataclass(frozen=True)
class LoadResult:
    """What a replica did under load; `error` is the first one."""

    completed: int
    failed: int
    tokens: int
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class UnitState:
    """A systemd unit at one moment; `main_pid` is 0 where none of its processes runs."""

    active: str
    main_pid: int
    restarts: int


@dataclass(frozen=True)
class GpuProcess:
    """A compute process on a GPU; `cgroup` is its /proc/PID/cgroup, None where it is not visible.

    In a container or under WSL the driver names processes that the host itself cannot see.
    """

    pid: str
    name: str
    memory_mib: int | None
    cgroup: str | None

    @property
    def unit(self) -> str | None:
        """The systemd unit that the process belongs to (under cgroup v1 and v2)."""
        parts = (self.cgroup or "").replace("\n", "/").split("/")
        units = [part for part in parts if part.endswith((".service", ".scope"))]
        # Units nest where a host is itself a container: the innermost is the host's own.
        return units[-1] if units else None

    def belongs_to(self, unit: str) -> bool:
        """Whether the process is in the unit's control group or in one below it."""
        return any(unit in line.split("/") for line in (self.cgroup or "").splitlines())


@dataclass(frozen=True)
class GpuState:
    """A GPU after the completions, and its utilization in percent, sampled under load."""

    memory_mib: int | None
    processes: tuple[GpuProcess, ...] = ()
    utilization_percent: tuple[int, ...] = ()


@dataclass(frozen=True)
class HostObservations:
    """All that was seen on one host; by replica name, unit name or GPU index.

    `gpu_tool` is the program that reads its GPUs, `gpu_error` says why no GPU could be read,
    `process_error` why no process on them could be, `unfinished` that time ran out before the host
    had done everything.
    """

    completions: Mapping[str, Answer] = field(default_factory=dict)
    streams: Mapping[str, Answer] = field(default_factory=dict)
    loads: Mapping[str, LoadResult] = field(default_factory=dict)
    before: Mapping[str, UnitState] = field(default_factory=dict)
    after: Mapping[str, UnitState] = field(default_factory=dict)
    gpus: Mapping[int, GpuState] = field(default_factory=dict)
    gpu_tool: str = "its GPUs' tool"
    gpu_error: str = ""
    process_error: str = ""
    unfinished: str = ""


def answer(data: Mapping[str, Any]) -> Answer:
    """An answer from the dict that `roles.host.probe` returns; keys it does not know are left."""
    known = {key: data[key] for key in Answer.__dataclass_fields__ if key in data}
    return Answer(**known)


def parse_observations(data: Mapping[str, Any]) -> HostObservations:
    """The host program's output, read. Raises KeyError, TypeError, ValueError if it is not that."""
    tool = readings.TOOLS.get(data.get("vendor", ""))
    outputs = {name: readings.Output(**item) for name, item in data.get("gpus", {}).items()}
    found = readings.read(tool, outputs) if tool else readings.Readings(error="not asked")
    samples = _samples(tool, data.get("samples", [])) if tool else {}
    return HostObservations(
        completions={name: answer(item) for name, item in data.get("completions", {}).items()},
        streams={name: answer(item) for name, item in data.get("streams", {}).items()},
        loads={name: LoadResult(**item) for name, item in data.get("loads", {}).items()},
        before={unit: parse_unit(text) for unit, text in data.get("units_before", {}).items()},
        after={unit: parse_unit(text) for unit, text in data.get("units_after", {}).items()},
        gpus=_gpus(found, data.get("cgroups", {}), samples),
        gpu_tool=tool.gpus[0] if tool else HostObservations.gpu_tool,
        gpu_error=found.error,
        process_error=found.process_error,
        unfinished=str(data.get("unfinished", "")),
    )


def parse_unit(text: str) -> UnitState:
    """A unit from `systemctl show`; what is missing reads as not running."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return UnitState(
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
) -> dict[int, GpuState]:
    return {
        index: GpuState(
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
    """How busy each GPU was, in the order of the samples; one that cannot be read is left out."""
    found: dict[int, tuple[int, ...]] = {}
    for text in texts:
        for index, percent in readings.utilization(tool, text).items():
            found[index] = (*found.get(index, ()), percent)
    return found
