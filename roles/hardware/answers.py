"""The parsed output of a host's GPU tools; a missing or failing tool is data, not an error."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from roles.hardware.gpus import Links
from roles.hardware.outputs.amd_smi import parse_amd_smi
from roles.hardware.outputs.dmesg import Dmesg, parse_dmesg
from roles.hardware.outputs.lspci import parse_lspci
from roles.hardware.outputs.query_apps import parse_query_apps
from roles.hardware.outputs.query_gpu import parse_query_gpu
from roles.hardware.outputs.record import GpuRecord, MigDevice, Process
from roles.hardware.outputs.rocm_smi import parse_rocm_smi
from roles.hardware.outputs.smi_error import SmiError, parse_smi_error
from roles.hardware.outputs.smi_list import parse_smi_list
from roles.hardware.outputs.smi_q_x import parse_smi_q_x
from roles.hardware.outputs.smi_version import parse_smi_version
from roles.hardware.outputs.text import OutputError
from roles.hardware.outputs.topo import Topology, parse_topo
from roles.hardware.outputs.topo_p2p import parse_topo_p2p

MISSING, HUNG = "missing", "hung"

Read = TypeVar("Read")


@dataclass(frozen=True)
class ToolOutput:
    """The output of one program and its status: the exit status, `missing` or `hung`."""

    text: str
    status: str = "0"

    @property
    def missing(self) -> bool:
        """Whether the host lacks the program."""
        return self.status == MISSING

    @property
    def hung(self) -> bool:
        """Whether it did not end in time (`timeout` exits with 124 or 137)."""
        return self.status in (HUNG, "124", "137")


ABSENT = ToolOutput("", MISSING)


@dataclass(frozen=True)
class ToolAnswers:
    """The parsed output of one host's tools.

    `query` and `amd` are the raw outputs of NVIDIA's and AMD's tool (`amd_tool`). `gpus` is None if
    the driver did not answer; `error` may then say why. `slices` are the GPUs in MIG mode with
    their slices. `unreadable` names each output that could not be parsed. Without `processes_read`
    it is unknown which processes use GPUs.
    """

    query: ToolOutput
    amd: ToolOutput
    amd_tool: str
    gpus: tuple[GpuRecord, ...] | None
    messages: tuple[str, ...]
    error: SmiError | None
    slices: tuple[GpuRecord, ...]
    topology: Topology | None
    p2p: Links | None
    amd_gpus: tuple[GpuRecord, ...] | None
    amd_links: Links | None
    pci_gpus: tuple[GpuRecord, ...]
    no_lspci: bool
    cuda_version: str | None
    processes: tuple[Process, ...]
    kernel_log: Dmesg
    unreadable: tuple[str, ...]
    processes_read: bool = True


def read_answers(parts: Mapping[str, ToolOutput]) -> ToolAnswers:
    """Parse the tools' outputs, by their labels in the host's answer."""
    reader = _Reader(parts)
    query = parts.get("query", ABSENT)
    amd_tool = "rocm-smi" if parts.get("amd-smi", ABSENT).missing else "amd-smi"
    query_gpus = reader.read("query", parse_query_gpu, any_status=True, quietly=True)
    version = reader.read("version", parse_smi_version)
    amd_gpus, amd_links = _amd(reader)
    lspci = reader.read("lspci", parse_lspci)
    p2p = reader.read("topo-p2p", parse_topo_p2p)
    # It also fails for one lost GPU, but lists the processes on the others.
    apps = reader.read("apps", parse_query_apps, any_status=True)
    return ToolAnswers(
        query=query,
        amd=parts.get(amd_tool, ABSENT),
        amd_tool=amd_tool,
        gpus=query_gpus.gpus if query_gpus else None,
        messages=query_gpus.messages if query_gpus else (),
        error=_error(query) if query_gpus is None else None,
        slices=_slices(reader),
        topology=reader.read("topo", parse_topo),
        p2p=p2p.pairs if p2p else None,
        amd_gpus=amd_gpus,
        amd_links=amd_links,
        pci_gpus=lspci.gpus if lspci else (),
        no_lspci=parts.get("lspci", ABSENT).missing,
        cuda_version=version.cuda if version else None,
        processes=apps.processes if apps else (),
        kernel_log=reader.read("kernel-log", parse_dmesg, quietly=True) or Dmesg(),
        unreadable=tuple(reader.unreadable),
        processes_read=apps is not None,
    )


class _Reader:
    """Parses outputs, and notes those that cannot be parsed although the tool succeeded.

    With `any_status` the output of a failed tool counts, too: nvidia-smi fails for one lost GPU.
    """

    def __init__(self, parts: Mapping[str, ToolOutput]) -> None:
        self.parts = parts
        self.unreadable: list[str] = []

    def read(
        self,
        name: str,
        parse: Callable[[str], Read],
        any_status: bool = False,
        quietly: bool = False,
    ) -> Read | None:
        part = self.parts.get(name, ABSENT)
        if part.missing or part.hung or (part.status != "0" and not any_status):
            return None
        try:
            return parse(part.text)
        except OutputError as error:
            if not quietly and part.status == "0":
                self.unreadable.append(f"{name}: {error}")
            return None


def _error(query: ToolOutput) -> SmiError | None:
    try:
        return parse_smi_error(query.text)
    except OutputError:
        return None


def _amd(reader: _Reader) -> tuple[tuple[GpuRecord, ...] | None, Links | None]:
    """GPUs and links from amd-smi, else from rocm-smi."""
    static = reader.read("amd-smi", parse_amd_smi)
    topology = reader.read("amd-topology", parse_amd_smi)
    rocm = reader.read("rocm-smi", parse_rocm_smi)
    gpus, links = static or rocm, topology or rocm
    return gpus.gpus if gpus else None, links.links if links else None


def _slices(reader: _Reader) -> tuple[GpuRecord, ...]:
    """GPUs with their MIG slices: profiles and UUIDs from -L, memory from -q -x."""
    listed = reader.read("list", parse_smi_list, any_status=True)
    details = reader.read("details", parse_smi_q_x)
    exact = {gpu.uuid: gpu.mig_devices for gpu in (details.gpus if details else ())}
    return tuple(
        replace(gpu, mig_devices=_with_memory(gpu.mig_devices, exact.get(gpu.uuid, ())))
        for gpu in (listed.gpus if listed else ())
        if gpu.mig_devices
    )


def _with_memory(listed: Sequence[MigDevice], exact: Sequence[MigDevice]) -> tuple[MigDevice, ...]:
    memory = {device.index: device.memory_total_mib for device in exact}
    return tuple(replace(device, memory_total_mib=memory.get(device.index)) for device in listed)
