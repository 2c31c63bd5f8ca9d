"""What validation saw on a host, and how it is read from the host program's JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from roles.hardware import OutputError, parse_smi_list


@dataclass(frozen=True)
class PlannedReplica:
    """What validation must find of one replica.

    `unit` is its systemd unit, `base_url` its address on its own host (`http://127.0.0.1:8001`),
    `model` the name it is served under and `gpus` the driver's indices; `sliced` are those of which
    it has but a MIG slice, so that other replicas may be there too. A layer split (llama.cpp)
    counts as pipeline parallel: its GPUs take turns.
    """

    name: str
    unit: str
    base_url: str
    model: str
    gpus: tuple[int, ...]
    tensor_parallel: int
    pipeline_parallel: int = 1
    sliced: tuple[int, ...] = ()


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

    `gpu_error` says why no GPU could be read, `process_error` why no process on them could be,
    `unfinished` that time ran out before the host had done everything.
    """

    completions: Mapping[str, Answer] = field(default_factory=dict)
    streams: Mapping[str, Answer] = field(default_factory=dict)
    loads: Mapping[str, LoadResult] = field(default_factory=dict)
    before: Mapping[str, UnitState] = field(default_factory=dict)
    after: Mapping[str, UnitState] = field(default_factory=dict)
    gpus: Mapping[int, GpuState] = field(default_factory=dict)
    gpu_error: str = ""
    process_error: str = ""
    unfinished: str = ""


def answer(data: Mapping[str, Any]) -> Answer:
    """An answer from the dict that `roles.host.probe` returns; keys it does not know are left."""
    known = {key: data[key] for key in Answer.__dataclass_fields__ if key in data}
    return Answer(**known)


def parse_observations(data: Mapping[str, Any]) -> HostObservations:
    """The host program's output, read. Raises KeyError, TypeError, ValueError if it is not that."""
    gpus, gpu_error = _gpus(data)
    apps = data.get("apps") or {"ok": True, "text": ""}
    read = apps["ok"] or _processes(data)
    return HostObservations(
        completions={name: answer(item) for name, item in data.get("completions", {}).items()},
        streams={name: answer(item) for name, item in data.get("streams", {}).items()},
        loads={name: LoadResult(**item) for name, item in data.get("loads", {}).items()},
        before={unit: parse_unit(text) for unit, text in data.get("units_before", {}).items()},
        after={unit: parse_unit(text) for unit, text in data.get("units_after", {}).items()},
        gpus=gpus,
        gpu_error=gpu_error,
        process_error="" if read else str(apps["text"]).strip(),
        unfinished=str(data.get("unfinished", "")),
    )


def parse_unit(text: str) -> UnitState:
    """A unit from `systemctl show`; what is missing reads as not running."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return UnitState(
        active=values.get("ActiveState", "") or "unknown",
        main_pid=number(values.get("MainPID", "")) or 0,
        restarts=number(values.get("NRestarts", "")) or 0,
    )


def number(text: str) -> int | None:
    """A whole number, or None for what drivers write instead ("[N/A]", "[GPU is lost]")."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _gpus(data: Mapping[str, Any]) -> tuple[dict[int, GpuState], str]:
    query = data.get("gpus") or {"ok": False, "text": "not asked"}
    # Where one GPU does not answer, nvidia-smi ends with an error after the rows of the others.
    rows = _rows(query["text"], 4)
    if not rows:
        return {}, str(query["text"]).strip() or "nvidia-smi printed nothing"
    processes = _processes(data)
    samples = _samples(data.get("samples", []))
    states = {}
    for index, uuid, memory, _ in rows:
        states[int(index)] = GpuState(
            number(memory), tuple(processes.get(uuid, ())), tuple(samples.get(index, ()))
        )
    return states, ""


def _rows(text: str, columns: int) -> list[list[str]]:
    """Rows of nvidia-smi's CSV that start with a GPU's index; anything else is a message."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return [row for row in rows if len(row) == columns and number(row[0]) is not None]


def _processes(data: Mapping[str, Any]) -> dict[str, list[GpuProcess]]:
    """Compute processes by the UUID of their GPU, also where the driver names its MIG slice.

    A process's name may itself hold commas.
    """
    parents = _parents(data.get("list") or {"text": ""})
    found: dict[str, list[GpuProcess]] = {}
    cgroups = data.get("cgroups", {})
    apps = data.get("apps") or {"ok": False, "text": ""}
    for line in str(apps["text"]).splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) >= 4:
            uuid, pid, name, memory = cells[0], cells[1], ",".join(cells[2:-1]), cells[-1]
            process = GpuProcess(pid, name, number(memory), cgroups.get(pid))
            found.setdefault(parents.get(uuid, uuid), []).append(process)
    return found


def _parents(listed: Mapping[str, Any]) -> dict[str, str]:
    """The UUID of the GPU that a slice is of, by the slice's own."""
    try:
        gpus = parse_smi_list(str(listed["text"])).gpus
    except OutputError:
        return {}
    return {
        device.uuid: gpu.uuid
        for gpu in gpus
        for device in gpu.mig_devices
        if device.uuid and gpu.uuid
    }


def _samples(texts: list[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for text in texts:
        for index, percent in _rows(text, 2):
            if (value := number(percent)) is not None:
                found.setdefault(index, []).append(value)
    return found
