"""`nvidia-smi topo -m`: how each pair of GPUs is linked, and the NICs and CPUs near each GPU."""

import re
from dataclasses import dataclass

from roles.hardware.outputs.matrix import Matrix, gpu_index, read_matrix
from roles.hardware.outputs.text import read_lines

# As the legends of drivers from 361 (SOC, PSB) to 595 name them.
LINK_LABELS = r"NV\d{1,2}|NODE|SYS|PHB|PXB|PIX|PSB|SOC"
P2P_LABELS = r"OK|CNS|GNS|TNS|NS|DR|U"
_CPU_LIST = re.compile(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*,?")
_NIC_LEGEND = re.compile(r"\s*(NIC\d{1,4}):\s+([A-Za-z](?=[\w.-]*\d)[\w.-]*)[\s`\"']*")


@dataclass(frozen=True)
class Nic:
    """A network adapter: its column, its device (None if the legend does not name it) and its label
    to each GPU in the order of `Topology.indexes` (None where a cut output does not show it)."""

    column: str
    device: str | None
    links: tuple[str | None, ...]


@dataclass(frozen=True)
class Topology:
    """What `nvidia-smi topo -m` shows, labels as printed (NV18, PIX, PXB, PHB, NODE, SYS ...).

    `gpus` counts them and `indexes` are the printed numbers, which may have gaps (GPU0, GPU2);
    `links` has each pair of printed numbers once, the lower first, sorted. `cpu_affinity` and
    `numa_affinity` are in the order of `indexes`. A NUMA affinity is the CPU's node: None for
    "N/A", for a blank and for a range ("0-1": no single node); of a list ("0,2-17", where the
    later nodes are GPU memory) the first.
    """

    gpus: int
    indexes: tuple[int, ...]
    links: tuple[tuple[int, int, str], ...]
    nics: tuple[Nic, ...]
    cpu_affinity: tuple[str | None, ...]
    numa_affinity: tuple[int | None, ...]


def parse_topo(text: str) -> Topology:
    """Reads `nvidia-smi topo -m`, also pasted or cut, as long as every pair of GPUs is shown.

    A matrix that contradicts itself, lacks a row or differs from a second one in the text raises
    OutputError, which names the line.
    """
    matrix = read_matrix(text, LINK_LABELS, P2P_LABELS)
    names = matrix.gpus()
    affinities = [_affinity(matrix, name) for name in names]
    return Topology(
        gpus=len(names),
        indexes=tuple(map(gpu_index, names)),
        links=matrix.gpu_pairs,
        nics=_nics(text, matrix, names),
        cpu_affinity=tuple(cpus for cpus, _ in affinities),
        numa_affinity=tuple(numa for _, numa in affinities),
    )


def _nics(text: str, matrix: Matrix, gpus: list[str]) -> tuple[Nic, ...]:
    legend = [_NIC_LEGEND.fullmatch(line.text) for line in read_lines(text)]
    devices = {match[1]: match[2] for match in legend if match}
    return tuple(
        Nic(
            column=name,
            device=devices.get(name) if re.fullmatch(r"NIC\d+", name) else name,
            links=tuple(matrix.label(gpu, name) for gpu in gpus),
        )
        for name in matrix.columns
        if name not in gpus
    )


def _affinity(matrix: Matrix, gpu: str) -> tuple[str | None, int | None]:
    """The CPUs and the NUMA node of a GPU; None for what the row does not say for certain."""
    row = matrix.rows.get(gpu)
    if row is None:
        return None, None
    titles = matrix.attributes
    # A paste may glue "0" and "N/A".
    values = re.sub(r"(?<=\d)N/A", " N/A", row.rest).split()
    rows_lack = any(name not in matrix.rows for name in matrix.columns)
    if gpu == matrix.cut_row and (rows_lack or len(values) < len(titles)):
        values = values[:-1]  # it may be the beginning of a longer one
    if len(values) < len(titles) and values:
        values[:1] = _parted(values[0])
    if len(values) == 1 and values[0].isdigit() and len(titles) > 1:
        return None, None  # a node or a CPU: nothing tells which
    shown = dict(zip(titles, values, strict=False))
    cpus = shown.get("CPU Affinity", "")
    return cpus if _CPU_LIST.fullmatch(cpus) else None, _node(shown.get("NUMA Affinity", ""))


def _parted(cpus: str) -> list[str]:
    """Parts a NUMA node that was glued to its CPUs, as "0-47,96-1430" from "0-47,96-143" and "0".

    The ranges of one node are equally long (a core's two threads), which shows where to part.
    """
    ranges = re.fullmatch(r"(\d{1,9})-(\d{1,9})((?:,\d+-\d+)*),(\d{1,9})-(\d{1,9})", cpus)
    if not ranges:
        return [cpus]
    length, start, end = int(ranges[2]) - int(ranges[1]), int(ranges[4]), ranges[5]
    for digits in range(1, len(end)):
        if int(end[:digits]) - start == length:
            return [cpus[: len(cpus) - len(end) + digits], end[digits:]]
    return [cpus]


def _node(value: str) -> int | None:
    first = re.fullmatch(r"(\d{1,9})(?:,[\d,-]+)?", value)
    return int(first[1]) if first else None
