"""Parses nvidia-smi's default table, in old and new layouts, complete or a fragment."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from roles.hardware.outputs import values
from roles.hardware.outputs.reading import Printed, gpu_record
from roles.hardware.outputs.record import GpuRecord, MigDevice, Process
from roles.hardware.outputs.smi_error import is_message
from roles.hardware.outputs.text import Line, OutputError, read_lines

_VERSIONS = re.compile(
    r"\|\s*NVIDIA-SMI\s+(\S+)\s+(?:Driver|KMD) Version:\s*(\S+)"
    r"(?:\s+CUDA (?:UMD )?Version:\s*(\S+))?\s*\|?"
)
_MODE = r"On|Off|N/A|WDDM|TCC|MCDM|ERR!"
_NAME_CELL = re.compile(rf" ([0-9]{{1,3}}) (\S.*) ({_MODE}) ")
_BUS_CELL = re.compile(r"\s*([0-9A-Fa-f.:]{7,16}|N/A|ERR!)\s+(?:On|Off|N/A|ERR!)\s*")
_POWER_CELL = re.compile(r"\s*\S*\s+(\S+)\s+\S+\s+(\S.*?)\s*/\s*(\S+)\s*")
_MEMORY_CELL = re.compile(r"\s*([0-9]+ ?Mi?B|ERR!|N/A)\s*/\s*([0-9]+ ?Mi?B|ERR!|N/A)\s*")
_MEMORY_WORDS = re.compile(r"\s*([A-Z][A-Za-z /]+|ERR!)\s*")
_USE_CELL = re.compile(r"\s*([0-9]+ ?%|N/A|ERR!)\s+(\S.*?)\s*")
_MIG_CELL = re.compile(r"\s*([0-9]{1,3})\s+([0-9]{1,3})\s+([0-9]{1,3})\s+([0-9]{1,3})\s*")
_PROCESS = re.compile(
    r"\|\s*([0-9]{1,3})(?:\s+(?:N/A|[0-9]+)\s+(?:N/A|[0-9]+))?\s+([0-9]{1,10})\s+"
    r"(?:C|G|C\+G|M\+C)\s+(.*?)\s+([0-9]+ ?Mi?B|N/A|Insufficient.*)\s*\|"
)
_MAX_LINE_LENGTH = 200


@dataclass(frozen=True)
class SmiTable:
    """The GPUs of the table: a long name is shortened or replaced by "..."."""

    gpus: tuple[GpuRecord, ...]
    driver_version: str | None = None
    cuda_version: str | None = None
    processes: tuple[Process, ...] = ()
    messages: tuple[str, ...] = ()


@dataclass
class _Block:
    """The lines of one GPU, cell by cell."""

    line: Line
    index: int
    printed: list[Printed] = field(default_factory=list)


def parse_smi_table(text: str) -> SmiTable:
    """Parse the table, even without its header or end, and the text after it.

    If tables repeat (-l, watch), the last counts. OutputError for text without a GPU's row, and for
    a GPU that is in one table twice.
    """
    lines = _last_table(read_lines(text))
    blocks: list[_Block] = []
    migs: list[tuple[int, MigDevice]] = []
    for line, cells in _rows(lines):
        if (mig := _mig_row(cells)) is not None:
            migs.append(mig)
        elif (block := _first_row(line, cells)) is not None:
            blocks.append(block)
        elif blocks and len(cells) == 3:
            blocks[-1].printed.extend(_later_row(cells))
    if not blocks:
        raise OutputError(
            "no GPU as nvidia-smi's table shows it: is this its output?",
            lines[0] if lines else None,
        )
    _check_new_index(blocks)
    driver, cuda = _versions(lines)
    gpus = tuple(_gpu(block, migs, driver) for block in blocks)
    return SmiTable(gpus, driver, cuda, tuple(_processes(lines, gpus)), _messages(lines))


def _last_table(lines: Sequence[Line]) -> Sequence[Line]:
    heads = [at for at, line in enumerate(lines) if _VERSIONS.match(line.text.strip())]
    return lines[heads[-1] :] if len(heads) > 1 else lines


def _rows(lines: Sequence[Line]) -> Iterator[tuple[Line, list[str]]]:
    """The rows above the processes, in cells."""
    for line in lines:
        text = _one_spaced(line)
        if text.startswith("| Processes:"):
            return
        if text.startswith("|") and text.endswith("|") and len(text) > 1:
            yield line, [f" {cell.strip()} " for cell in text[1:-1].split("|")]


def _one_spaced(line: Line) -> str:
    """The line with single blanks, so that patterns match unambiguously; "" for a line that is too
    long for the table."""
    return " ".join(line.text.split()) if len(line.text) <= _MAX_LINE_LENGTH else ""


def _first_row(line: Line, cells: Sequence[str]) -> _Block | None:
    """Index, name, persistence, bus id and ECC errors."""
    if len(cells) != 3:
        return None
    name, bus = _NAME_CELL.fullmatch(cells[0]), _BUS_CELL.fullmatch(cells[1])
    if name is None or bus is None:
        return None
    ecc = cells[2].strip()
    ecc_field = "ecc_mode" if ecc in ("On", "Off") else "ecc_volatile"
    return _Block(
        line,
        int(name[1]),
        [
            Printed("name", "name", name[2]),
            Printed(_persistence(name[3]), "persistence", name[3]),
            Printed("pci_address", "bus id", bus[1]),
            Printed(ecc_field, "volatile uncorrectable ECC", ecc),
            Printed("ecc_mode" if ecc.isdecimal() else None, "ECC", "On"),
        ],
    )


def _persistence(mode: str) -> str | None:
    """The field of the mode cell: on Windows it has the driver model instead, so None."""
    return None if mode in ("WDDM", "TCC", "MCDM") else "persistence_mode"


def _later_row(cells: Sequence[str]) -> Iterator[Printed]:
    """Temperature, power, memory and utilization; or the MIG mode alone."""
    if not cells[0].strip() and not cells[1].strip():
        yield Printed("mig_mode", "MIG mode", cells[2])
        return
    power, use = _POWER_CELL.fullmatch(cells[0]), _USE_CELL.fullmatch(cells[2])
    if power is not None:
        yield Printed("temperature_c", "temperature", power[1])
        yield Printed("power_limit_w", "power cap", power[3])
    memory, match = _MEMORY_CELL.fullmatch(cells[1]), _MEMORY_WORDS.fullmatch(cells[1])
    if memory is not None:
        yield Printed("memory_used_mib", "memory used", memory[1])
        yield Printed("memory_total_mib", "memory total", memory[2])
    elif match is not None:
        yield Printed("memory_total_mib", "memory", match[1])
    yield Printed("utilization_percent", "utilization", use[1] if use else cells[2])
    if use is not None:
        yield Printed("compute_mode", "compute mode", use[2])


def _mig_row(cells: Sequence[str]) -> tuple[int, MigDevice] | None:
    """GPU, instances, index and memory of a MIG device."""
    if len(cells) != 4:
        return None
    ids, memory = _MIG_CELL.fullmatch(cells[0]), _MEMORY_CELL.fullmatch(cells[1])
    if ids is None or memory is None:
        return None
    return int(ids[1]), MigDevice(
        index=int(ids[4]),
        memory_total_mib=values.mebibytes(memory[2]),
        gpu_instance_id=int(ids[2]),
        compute_instance_id=int(ids[3]),
    )


def _gpu(block: _Block, migs: Sequence[tuple[int, MigDevice]], driver: str | None) -> GpuRecord:
    own = tuple(device for index, device in migs if index == block.index)
    return gpu_record(block.printed, own, index=block.index, driver_version=driver)


def _check_new_index(blocks: Sequence[_Block]) -> None:
    seen: set[int] = set()
    for block in blocks:
        if block.index in seen:
            raise OutputError("this GPU is in the table twice: give one at a time", block.line)
        seen.add(block.index)


def _versions(lines: Sequence[Line]) -> tuple[str | None, str | None]:
    for line in lines:
        match = _VERSIONS.match(line.text.strip())
        if match is not None:
            return values.version(match[2]), values.version(match[3] or "")
    return None, None


def _processes(lines: Sequence[Line], gpus: Sequence[GpuRecord]) -> Iterator[Process]:
    addresses = {gpu.index: gpu.pci_address for gpu in gpus}
    for line in lines:
        match = _PROCESS.fullmatch(_one_spaced(line))
        if match is not None:
            index, pid, name, memory = match.groups()
            yield Process(
                gpu_pci_address=addresses.get(int(index)),
                pid=int(pid),
                name=None if values.is_failure(name) or values.is_absent(name) else name,
                used_memory_mib=values.mebibytes(memory),
                gpu_index=int(index),
            )


def _messages(lines: Sequence[Line]) -> tuple[str, ...]:
    return tuple(line.text.strip() for line in lines if is_message(line.text))
