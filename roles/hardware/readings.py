"""What each GPU holds and does now, from the texts of NVIDIA's or AMD's tool. Pure.

A host is asked by the commands of `NVIDIA` or `AMD`, which a caller need not tell apart.
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
    """A process that computes on a GPU, as far as its driver names it."""

    pid: int | None
    name: str
    memory_mib: int | None


@dataclass(frozen=True)
class Reading:
    """One GPU now, by the driver's index; None where the driver does not say."""

    index: int
    memory_mib: int | None
    utilization_percent: int | None
    processes: tuple[GpuProcess, ...] = ()


@dataclass(frozen=True)
class Readings:
    """All GPUs of a host by index; `error` says why none could be read, `process_error` why their
    processes could not be."""

    gpus: Mapping[int, Reading] = field(default_factory=dict)
    error: str = ""
    process_error: str = ""


@dataclass(frozen=True)
class Output:
    """What a command printed, and whether it ended well; why not stands in the text."""

    ok: bool
    text: str


@dataclass(frozen=True)
class Tool:
    """How a vendor's tool is asked: each command as its arguments, by a name that `read` knows.

    `load` tells the GPUs' utilization alone. `pid` is a regular expression whose group is a process
    in what `processes` prints, a line each.
    """

    vendor: str
    gpus: tuple[str, ...]
    processes: tuple[str, ...]
    load: tuple[str, ...]
    pid: str
    slices: tuple[str, ...] = ()

    @property
    def commands(self) -> dict[str, tuple[str, ...]]:
        """What is asked for a reading, by name."""
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
    """The tool that reads a host's GPUs: AMD's where one of them is AMD's, else NVIDIA's."""
    amd = any(
        (gpu.pci_device_id or "").startswith("1002:") or gpu.name.upper().startswith("AMD ")
        for gpu in gpus
    )
    return AMD if amd else NVIDIA


def read(tool: Tool, outputs: Mapping[str, Output]) -> Readings:
    """The readings of a host, from what `tool.commands` printed, by their names.

    Where one GPU does not answer, a tool fails after it told of the others: they count.
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
    """How busy each GPU is in percent, from what `tool.load` printed; none where it is no such."""
    return {
        record.index: record.utilization_percent
        for record in _records(tool, text, _LOAD_FIELDS)
        if record.index is not None and record.utilization_percent is not None
    }


def processes_by_gpu(
    processes: Iterable[Process], listed: Iterable[GpuRecord], gpus: Iterable[GpuRecord]
) -> dict[int, list[Process]]:
    """The processes on each GPU by its index, also where the driver names a slice of it.

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
    """The processes, and why they could not be read, or ""."""
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
