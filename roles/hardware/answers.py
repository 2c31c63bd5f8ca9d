"""The answers of a host's GPU tools; one that is missing or fails is a fact, not an error."""

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
    """What one program printed and how it ended: its exit status, `missing` or `hung`."""

    text: str
    status: str = "0"

    @property
    def missing(self) -> bool:
        """Whether the host has no such program."""
        return self.status == MISSING

    @property
    def hung(self) -> bool:
        """Whether it gave no answer in its time (124 and 137 are those of `timeout`)."""
        return self.status in (HUNG, "124", "137")


ABSENT = ToolOutput("", MISSING)


@dataclass(frozen=True)
class ToolAnswers:
    """What the tools of one host said.

    `query` and `amd` are what NVIDIA's and AMD's tools (`amd_tool`) said of the GPUs. `gpus` is
    None where the driver could not be asked; then `error` may say why. `slices` are the
    GPUs in MIG mode with their slices. `unreadable` names each answer that could not be read;
    without `processes_read` it is not known which processes hold GPUs.
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
    """Read what tools printed, by the label of each in the host's answer."""
    reader = _Reader(parts)
    query = parts.get("query", ABSENT)
    amd_tool = "rocm-smi" if parts.get("amd-smi", ABSENT).missing else "amd-smi"
    query_gpus = reader.read("query", parse_query_gpu, any_status=True, quietly=True)
    version = reader.read("version", parse_smi_version)
    amd_gpus, amd_links = _amd(reader)
    lspci = reader.read("lspci", parse_lspci)
    p2p = reader.read("topo-p2p", parse_topo_p2p)
    # It fails, too, for one lost GPU, and lists what holds the others.
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
    """Reads parts, and notes those that a tool gave as an answer but that are none.

    With `any_status` an answer counts although its tool failed: nvidia-smi fails for one lost GPU.
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
    """GPUs and links as amd-smi tells them, else rocm-smi."""
    static = reader.read("amd-smi", parse_amd_smi)
    topology = reader.read("amd-topology", parse_amd_smi)
    rocm = reader.read("rocm-smi", parse_rocm_smi)
    gpus, links = static or rocm, topology or rocm
    return gpus.gpus if gpus else None, links.links if links else None


def _slices(reader: _Reader) -> tuple[GpuRecord, ...]:
    """GPUs with their MIG slices: profiles and UUIDs are in -L, the memory is in -q -x."""
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
