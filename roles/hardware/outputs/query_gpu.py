"""Parses `nvidia-smi --query-gpu=… --format=csv`: GPUs, with any columns."""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from roles.hardware.outputs.csv_columns import infer_columns
from roles.hardware.outputs.csv_table import Row, Table, read_table
from roles.hardware.outputs.reading import Printed, gpu_record, merged
from roles.hardware.outputs.record import GpuRecord
from roles.hardware.outputs.smi_list import list_gpu, list_mig_device, with_mig_device
from roles.hardware.outputs.text import MAX_GPUS, MAX_SLICES, Line, OutputError, read_lines
from roles.hardware.outputs.values import is_denied, is_failure

_ECC = "ecc.errors.uncorrected."

# Names as `nvidia-smi --help-query-gpu` lists them, aliases included, in order of preference.
_FIELDS = {
    "index": "index",
    "name": "name",
    "gpu_name": "name",
    "uuid": "uuid",
    "gpu_uuid": "uuid",
    "serial": "serial",
    "gpu_serial": "serial",
    "pci.bus_id": "pci_address",
    "gpu_bus_id": "pci_address",
    "pci.device_id": "pci_device_id",
    "driver_version": "driver_version",
    "kmd_version": "driver_version",
    "compute_cap": "compute_capability",
    "memory.total": "memory_total_mib",
    "memory.used": "memory_used_mib",
    "memory.free": "memory_free_mib",
    "memory.reserved": "memory_reserved_mib",
    "pcie.link.gen.current": "pcie_generation",
    "pcie.link.gen.max": "pcie_generation_max",
    "pcie.link.gen.gpumax": "pcie_generation_card",
    "pcie.link.width.current": "pcie_width",
    "pcie.link.width.max": "pcie_width_max",
    "persistence_mode": "persistence_mode",
    "compute_mode": "compute_mode",
    "ecc.mode.current": "ecc_mode",
    _ECC + "aggregate.sram.thresholdexceeded": "sram_threshold_exceeded",
    "remapped_rows.correctable": "remapped_rows_correctable",
    "remapped_rows.uncorrectable": "remapped_rows_uncorrectable",
    "remapped_rows.pending": "remapped_rows_pending",
    "remapped_rows.failure": "remapped_rows_failed",
    "retired_pages.single_bit_ecc.count": "retired_pages_single_bit",
    "retired_pages.sbe": "retired_pages_single_bit",
    "retired_pages.double_bit.count": "retired_pages_double_bit",
    "retired_pages.dbe": "retired_pages_double_bit",
    "retired_pages.pending": "retired_pages_pending",
    "gpu_recovery_action": "recovery_action",
    "reset_status.reset_required": "reset_required",
    "reset_status.drain_and_reset_recommended": "drain_and_reset_recommended",
    "fabric.state": "fabric_state",
    "fabric.status": "fabric_status",
    "fabric.health.summary": "fabric_health",
    "mig.mode.current": "mig_mode",
    "power.limit": "power_limit_w",
    "power.default_limit": "power_default_w",
    "power.min_limit": "power_min_w",
    "power.max_limit": "power_max_w",
    "enforced.power.limit": "power_limit_w",
    "temperature.gpu": "temperature_c",
    "utilization.gpu": "utilization_percent",
}
# Some cards have no power limits and print an error instead, which is not a fault.
_LIMITS = ("power.limit", "power.default_limit", "power.min_limit", "power.max_limit")
_PREFERENCE = {name: place for place, name in enumerate(_FIELDS)}
_OTHERS = ("timestamp", "count", "pstate", "power.draw", "vbios_version", "fan.speed")
_KNOWN = frozenset((*_FIELDS, *_OTHERS))
_IDENTITY = ("index", "uuid", "pci_address", "serial")
_SAME_ROUND_S = 0.5
# Eight hours of a loop (-l 60) over 16 GPUs.
MAX_ROWS = 8_000
_MARKED_VALUE = re.compile(r"\[[A-Z][A-Za-z/ ]+\]|[0-9.]+ (?:MiB|W|MHz|%)|P[0-9]{1,2}")
_VALUE = re.compile(
    rf"{_MARKED_VALUE.pattern}|[0-9]{{1,12}}(?:\.[0-9]{{1,3}})?|N/A|(?:Not )?Active"
)


@dataclass(frozen=True)
class QueryGpu:
    """GPUs in the order of the output; `messages` are its error or warning lines."""

    gpus: tuple[GpuRecord, ...]
    messages: tuple[str, ...] = ()


def parse_query_gpu(text: str, fields: Sequence[str] | None = None) -> QueryGpu:
    """Parse the CSV with or without header and units; `fields` are the requested names.

    Without header and `fields` only columns that their values determine are read. If rows repeat
    (-l), the newest of each GPU counts. Lines of `nvidia-smi -L` after the CSV are merged.
    OutputError for other text, and for rows that do not fit.
    """
    lines = read_lines(text)
    listed = _listed(lines)
    rest = [line for line in lines if not _is_listed(line)]
    table = read_table(rest, _KNOWN, fields)
    if len(table.rows) > MAX_ROWS or len(listed) > MAX_GPUS:
        raise OutputError("more rows or GPUs than any host prints", lines[0])
    if not table.rows and not (table.columns and table.messages):
        first = next((line for line in lines), None)
        raise OutputError("no GPU as nvidia-smi --query-gpu prints it in CSV", first)
    columns = table.columns or infer_columns([row.cells for row in table.rows], len(table.messages))
    _check_kind(table, columns, lines[0])
    gpus = _newest(table, columns)
    return QueryGpu(_with_listed(gpus, listed), table.messages)


def _check_kind(table: Table, columns: Sequence[str], first: Line) -> None:
    foreign = set(columns) & {"pid", "process_name", "retired_pages.address"}
    if foreign:
        raise OutputError(f"a table with {min(foreign)} is one of processes or pages", first)
    if set(columns) & _KNOWN or (table.columns is None and _are_values(table.rows)):
        return
    raise OutputError(
        "none of these columns can be identified: ask nvidia-smi for a header, or name the fields",
        first,
    )


def _are_values(rows: Sequence[Row]) -> bool:
    """Whether rows with unknown columns have only values in nvidia-smi's forms."""
    cells = [cell for row in rows for cell in row.cells]
    return all(map(_VALUE.fullmatch, cells)) and any(map(_MARKED_VALUE.fullmatch, cells))


def _record(row: Row, columns: Sequence[str]) -> GpuRecord:
    labels = [name or f"column {place}" for place, name in enumerate(columns, 1)]
    pairs = sorted(
        zip(labels, row.cells, strict=True),
        key=lambda pair: _PREFERENCE.get(pair[0], len(_PREFERENCE)),
    )
    record = gpu_record(
        Printed(_field(name, columns), name, cell)
        for name, cell in pairs
        if not (name in _LIMITS and is_failure(cell))
    )
    # An unknown column may be an important one.
    denied = (f"{name}: {cell}" for name, cell in pairs if name not in columns and is_denied(cell))
    return replace(record, unreadable=(*record.unreadable, *denied))


def _field(name: str, columns: Sequence[str]) -> str | None:
    """The record's field of a column; parts of the ECC errors count if there is no total."""
    for scope in ("volatile", "aggregate"):
        total = f"{_ECC}{scope}.total"
        parts = {f"{_ECC}{scope}.{it}" for it in ("dram", "sram")}
        if name == total or (name in parts and total not in columns):
            return f"ecc_{scope}"
    return _FIELDS.get(name)


def _newest(table: Table, columns: Sequence[str]) -> list[GpuRecord]:
    """The last reading of every GPU, distinguished by its identity fields."""
    records = [_record(row, columns) for row in table.rows]
    identities = [tuple(getattr(it, name) for name in _IDENTITY) for it in records]
    if not any(any(part is not None for part in identity) for identity in identities):
        return records[-_last_round(table, columns) :] if records else []
    newest: dict[object, GpuRecord] = {}
    for place, (identity, record) in enumerate(zip(identities, records, strict=True)):
        known = any(part is not None for part in identity)
        newest[identity if known else place] = record
    return list(newest.values())


def _last_round(table: Table, columns: Sequence[str]) -> int:
    """The number of rows in the last round of a loop whose rows do not identify GPUs.

    Rows of one round are printed together; rounds are at least a second apart.
    """
    if "count" in columns:
        count = table.rows[-1].cells[columns.index("count")]
        if count.isdecimal() and 0 < int(count[:4]) <= len(table.rows):
            return int(count[:4])
    if "timestamp" not in columns:
        return len(table.rows)
    at = columns.index("timestamp")
    times = [_seconds(row, at) for row in table.rows]
    starts = [
        place
        for place, (before, after) in enumerate(pairwise(times), 1)
        if abs(after - before) >= _SAME_ROUND_S
    ]
    return len(times) - max(starts, default=0)


def _seconds(row: Row, at: int) -> float:
    try:
        read = datetime.datetime.strptime(row.cells[at], "%Y/%m/%d %H:%M:%S.%f")
        return (read - datetime.datetime.min).total_seconds()
    except ValueError:
        raise OutputError("expected a time such as 2025/11/24 14:08:55.751", row.line) from None


def _is_listed(line: Line) -> bool:
    return list_gpu(line.text) is not None or list_mig_device(line.text) is not None


def _listed(lines: Sequence[Line]) -> list[GpuRecord]:
    """The GPUs of lines as `nvidia-smi -L` prints them."""
    gpus: list[GpuRecord] = []
    for line in lines:
        gpu, device = list_gpu(line.text), list_mig_device(line.text)
        if gpu is not None:
            gpus.append(gpu)
        elif device is not None and gpus and len(gpus[-1].mig_devices) < MAX_SLICES:
            gpus[-1] = with_mig_device(gpus[-1], device)
    return gpus


def _with_listed(gpus: list[GpuRecord], listed: list[GpuRecord]) -> tuple[GpuRecord, ...]:
    """The GPUs merged with the list: by UUID or index, else by equal order."""
    by_order = [gpu.name for gpu in gpus] == [it.name for it in listed]
    added = []
    for place, gpu in enumerate(gpus):
        same = [
            it
            for it in listed
            if (gpu.uuid is not None and it.uuid == gpu.uuid)
            or (gpu.uuid is None and gpu.index is not None and it.index == gpu.index)
        ]
        if not same and by_order and gpu.uuid is None and gpu.index is None:
            same = [listed[place]]
        added.append(merged(gpu, replace(same[0], name=None)) if len(same) == 1 else gpu)
    return tuple(added)
