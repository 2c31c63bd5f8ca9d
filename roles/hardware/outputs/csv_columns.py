"""Infers the columns of a CSV of GPUs without header, if their values determine them."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from roles.hardware.outputs.values import is_absent, is_failure, mebibytes, pci_address

_UUID = re.compile(r"GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NAME = re.compile(
    r"(?:(?:NVIDIA(?!-SMI| Corporation)|Tesla|GeForce|Quadro|TITAN|GRID|Graphics Device)\b"
    r"|[ABHLTVP][0-9]{1,3}[A-Z]?-)[A-Za-z0-9 .()/+_-]{0,64}"
)
_THREE_PART_VERSION = re.compile(r"[0-9]{3}\.[0-9]{2,3}\.[0-9]{2}")
_TWO_PART_VERSION = re.compile(r"[3-9][0-9]{2}\.[0-9]{2,3}")
_MEBIBYTES = re.compile(r"[0-9]{1,9} MiB")
_UNIT = re.compile(r"[0-9.]+ (?:MiB|W|MHz|%)")
# Every capability that CUDA knows, https://developer.nvidia.com/cuda-gpus and its legacy list;
# 1.x and 2.x are left out, as they are versions of the infoROM far more often.
_CAPABILITY = re.compile(
    r"3\.[0257]|5\.[023]|6\.[0-2]|7\.[025]|8\.[0679]|9\.0|10\.[013]|11\.0|12\.[01]"
)

Cells = Sequence[Sequence[str]]


def infer_columns(rows: Cells, missing_gpus: int = 0) -> tuple[str, ...]:
    """The name of each column, "" if it is uncertain: a single amount of MiB may be any memory.

    `missing_gpus` is the number of GPUs that may have an error line instead of a row.
    The rows are of one length.
    """
    columns = list(zip(*rows, strict=True))
    has_units = any(_UNIT.fullmatch(cell) for row in rows for cell in row)
    names = [""] * len(columns)
    # In a single column only UUIDs, addresses and names are certain, not versions.
    for name, test in _tests(has_units)[: 3 if len(columns) == 1 else None]:
        fitting = [at for at, column in enumerate(columns) if _every_value(column, test)]
        # Two columns of one kind, such as two versions, are certain only if they are equal.
        if fitting and all(columns[at] == columns[fitting[0]] for at in fitting):
            names[fitting[0]] = name
    total = _total_memory(columns)
    if total is not None:
        names[total] = "memory.total"
    if any(names) and _are_indexes(columns[0], len(rows) + missing_gpus, names):
        names[0] = "index"
    return tuple(names)


def _tests(has_units: bool) -> list[tuple[str, Callable[[str], bool]]]:
    return [
        ("uuid", lambda cell: _UUID.fullmatch(cell) is not None),
        ("pci.bus_id", lambda cell: cell.count(":") == 2 and pci_address(cell) is not None),
        ("name", lambda cell: _NAME.fullmatch(cell) is not None),
        ("compute_cap", lambda cell: _CAPABILITY.fullmatch(cell) is not None),
        ("driver_version", lambda cell: _is_driver_version(cell, has_units)),
    ]


def _is_driver_version(cell: str, has_units: bool) -> bool:
    """Without units, "616.92" may as well be watts, which have two decimals."""
    if _TWO_PART_VERSION.fullmatch(cell):
        return has_units or len(cell) == len("580.142")
    return _THREE_PART_VERSION.fullmatch(cell) is not None


def _every_value(column: Sequence[str], test: Callable[[str], bool]) -> bool:
    """Whether at least one cell has a value, and all such cells pass."""
    present = [cell for cell in column if not is_absent(cell) and not is_failure(cell)]
    return bool(present) and all(map(test, present))


def _total_memory(columns: Sequence[Sequence[str]]) -> int | None:
    """The column of the total among three amounts of memory: used and free nearly add up to it."""
    places = [at for at, column in enumerate(columns) if all(map(_MEBIBYTES.fullmatch, column))]
    if len(places) != 3:
        return None
    rows = [
        [mebibytes(cell) or 0 for cell in row]
        for row in zip(*map(columns.__getitem__, places), strict=True)
    ]
    largest = {row.index(max(row)) for row in rows}
    # What the driver reserves is in neither: 2 % of an A100, 7 % of a small T4.
    filled = all(0 < sum(row) <= 2 * max(row) <= 1.1 * sum(row) for row in rows)
    return places[largest.pop()] if filled and len(largest) == 1 else None


def _are_indexes(column: Sequence[str], gpus: int, names: Sequence[str]) -> bool:
    """Whether the first column has rising indexes, beside a column that identifies GPUs."""
    if names[0] or not all(cell.isascii() and cell.isdecimal() for cell in column):
        return False
    numbers = [int(cell[:6]) for cell in column]
    rising = all(before < after for before, after in pairwise(numbers))
    return rising and numbers[-1] < gpus and any(names[1:2] if gpus == 1 else names[1:])
