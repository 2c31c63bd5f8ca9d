"""The current memory, utilization and processes of GPUs, from NVIDIA's or AMD's tool. Pure.

A host runs the commands of `NVIDIA` or `AMD`; callers need not distinguish them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from roles.hardware.gpus import Gpu
from roles.hardware.outputs.amd_processes import parse_amd_processes
from roles.hardware.outputs.amd_smi import parse_amd_smi
from roles.hardware.outputs.query_apps import parse_query_apps
from roles.hardware.outputs.query_gpu import parse_query_gpu
from roles.hardware.outputs.record import GpuRecord, Process
from roles.hardware.outputs.smi_list import parse_smi_list
from roles.hardware.outputs.text import OutputError

_GPU_FIELDS = ("index", "uuid", "memory.used", "utilization.gpu")
_LOAD_FIELDS = ("index", "utilization.gpu")
_APP_FIELDS = ("gpu_uuid", "pid", "process_name", "used_memory")
_CSV = "--format=csv,noheader,nounits"


@dataclass(frozen=True)
class GpuProcess:
    """A process on a GPU, as far as the driver identifies it."""

    pid: int | None
    name: str
    memory_mib: int | None


@dataclass(frozen=True)
class Reading:
    """The current state of one GPU, by the driver's index; None means unknown."""

    index: int
    memory_mib: int | None
    utilization_percent: int | None
    processes: tuple[GpuProcess, ...] = ()


@dataclass(frozen=True)
class Readings:
    """The readings of a host's GPUs by index. `error` says why there are none, `process_error` why
    their processes are unknown."""

    gpus: Mapping[int, Reading] = field(default_factory=dict)
    error: str = ""
    process_error: str = ""


@dataclass(frozen=True)
class Output:
    """The output of a command, and whether it succeeded; the text says why not."""

    ok: bool
    text: str


@dataclass(frozen=True)
class Tool:
    """The commands of a vendor's tool, each as its arguments, by the names that `read` expects.

    `load` prints only the GPUs' utilization. `pid` is a regular expression whose group matches a
    process id in a line of `processes`.
    """

    vendor: str
    gpus: tuple[str, ...]
    processes: tuple[str, ...]
    load: tuple[str, ...]
    pid: str
    slices: tuple[str, ...] = ()

    @property
    def commands(self) -> dict[str, tuple[str, ...]]:
        """The commands for a reading, by name."""
        named = {"gpus": self.gpus, "processes": self.processes, "slices": self.slices}
        return {name: command for name, command in named.items() if command}


NVIDIA = Tool(
    vendor="nvidia",
    gpus=("nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", _CSV),
    processes=("nvidia-smi", f"--query-compute-apps={','.join(_APP_FIELDS)}", _CSV),
    load=("nvidia-smi", f"--query-gpu={','.join(_LOAD_FIELDS)}", _CSV),
    pid=r"^[^,\n]*, *([0-9]+) *,",
    slices=("nvidia-smi", "-L"),
)
AMD = Tool(
    vendor="amd",
    gpus=("amd-smi", "metric", "--usage", "--mem-usage", "--json"),
    processes=("amd-smi", "process", "--json"),
    load=("amd-smi", "metric", "--usage", "--json"),
    pid=r'"pid": *([0-9]+)',
)
TOOLS = {tool.vendor: tool for tool in (NVIDIA, AMD)}


def tool_of(gpus: Iterable[Gpu]) -> Tool:
    """The tool for a host's GPUs: AMD's if one of them is AMD's, else NVIDIA's."""
    amd = any(
        (gpu.pci_device_id or "").startswith("1002:") or gpu.name.upper().startswith("AMD ")
        for gpu in gpus
    )
    return AMD if amd else NVIDIA


def read(tool: Tool, outputs: Mapping[str, Output]) -> Readings:
    """The readings of a host, from the outputs of `tool.commands` by name.

    If one GPU does not answer, a tool reports the others and then fails: the others count.
    """
    gpu_output = outputs.get("gpus", Output(False, "not asked"))
    records = _records(tool, gpu_output.text, _GPU_FIELDS)
    if not records:
        return Readings(error=gpu_output.text.strip() or f"{tool.gpus[0]} printed nothing")
    processes, process_error = _processes(tool, outputs.get("processes", Output(True, "")))
    slices = outputs.get("slices", Output(True, "")).text
    by_gpu = processes_by_gpu(processes, _listed(slices), records)
    gpus = {
        record.index: Reading(
            record.index,
            record.memory_used_mib,
            record.utilization_percent,
            tuple(map(_process, by_gpu.get(record.index, ()))),
        )
        for record in records
        if record.index is not None
    }
    return Readings(gpus, process_error=process_error)


def utilization(tool: Tool, text: str) -> dict[int, int]:
    """Each GPU's utilization in percent, from the output of `tool.load`; empty if it is invalid."""
    return {
        record.index: record.utilization_percent
        for record in _records(tool, text, _LOAD_FIELDS)
        if record.index is not None and record.utilization_percent is not None
    }


def processes_by_gpu(
    processes: Iterable[Process], listed: Iterable[GpuRecord], gpus: Iterable[GpuRecord]
) -> dict[int, list[Process]]:
    """The processes on each GPU by its index, including those on its slices.

    `listed` are GPUs with their slices.
    """
    index = {gpu.uuid: gpu.index for gpu in gpus if gpu.uuid and gpu.index is not None}
    for gpu in listed:
        at = index.get(gpu.uuid or "", gpu.index)
        if at is not None:
            index |= {device.uuid: at for device in gpu.mig_devices if device.uuid}
    found: dict[int, list[Process]] = {}
    for process in processes:
        at = process.gpu_index if process.gpu_uuid is None else index.get(process.gpu_uuid)
        if at is not None:
            found.setdefault(at, []).append(process)
    return found


def _process(process: Process) -> GpuProcess:
    return GpuProcess(process.pid, process.name or "?", process.used_memory_mib)


def _records(tool: Tool, text: str, fields: Sequence[str]) -> tuple[GpuRecord, ...]:
    try:
        gpus = parse_amd_smi(text).gpus if tool is AMD else parse_query_gpu(text, fields).gpus
    except OutputError:
        return ()
    return tuple(gpu for gpu in gpus if gpu.index is not None)


def _processes(tool: Tool, output: Output) -> tuple[tuple[Process, ...], str]:
    """The processes, and why they could not be read ("" if they could)."""
    parse: Callable[[str], tuple[Process, ...]] = (
        parse_amd_processes
        if tool is AMD
        else lambda text: parse_query_apps(text, _APP_FIELDS).processes
    )
    try:
        found = parse(output.text)
    except OutputError:
        return (), "" if output.ok else output.text.strip()
    return found, "" if output.ok or found else output.text.strip()


def _listed(text: str) -> tuple[GpuRecord, ...]:
    try:
        return parse_smi_list(text).gpus
    except OutputError:
        return ()
