"""Parses the CSV of nvidia-smi's --query-… options into header, rows and error lines."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from roles.hardware.outputs.smi_error import is_message
from roles.hardware.outputs.text import Line, OutputError

_COLUMN = re.compile(r"([a-zA-Z][a-zA-Z0-9_]*(?:\.[a-zA-Z0-9_]+)*)(?: \[[^\[\]]+\])?")
_FIELD_LIST = re.compile(r"--query-[a-z-]{1,30}[= ]([a-zA-Z0-9_.,]+)")
# nvidia-smi knows some 200 fields.
_MAX_CELLS = 1000


@dataclass(frozen=True)
class Row:
    """One line of values with its cells, as printed."""

    line: Line
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """`columns` are names in lower case without units; None if they are unknown."""

    columns: tuple[str, ...] | None
    rows: tuple[Row, ...]
    messages: tuple[str, ...]


def read_table(lines: Sequence[Line], known: frozenset[str], fields: Sequence[str] | None) -> Table:
    """The table of the lines; a header has at least one of the `known` names.

    The columns come from the header, else from a printed command line, else from `fields`.
    OutputError if a row's number of cells is not that of the columns, or a second header differs.
    """
    columns = None if fields is None else tuple(map(_name, fields))
    headers: list[tuple[str, ...]] = []
    rows: list[Row] = []
    messages: list[str] = []
    for line in lines:
        if is_message(line.text):
            messages.append(line.text.strip())
            continue
        field_list, header = _FIELD_LIST.search(line.text), _header(line, known)
        if field_list is not None:
            columns = tuple(map(_name, field_list[1].strip(",").split(",")))
        elif header is not None:
            if headers and headers[0] != header:
                raise OutputError("a second table with other columns: give one at a time", line)
            headers.append(header)
        else:
            rows.append(Row(line, cells(line)))
    columns = headers[0] if headers else columns
    odd = next((row for row in rows if len(row.cells) != len(rows[0].cells)), None)
    if columns is None and odd is not None:
        raise OutputError("this row has another number of values than the first", odd.line)
    return Table(columns, tuple(_fit_to_columns(row, columns) for row in rows), tuple(messages))


def cells(line: Line) -> tuple[str, ...]:
    """The cells of a line, without blanks around them; quoted ones may have commas in them."""
    text = line.text.strip()
    if '"' not in text and ", " in text:
        # nvidia-smi's own separator: a comma without a blank belongs to a value.
        return _bounded_cells([cell.strip() for cell in f"{text} ".split(", ")], line)
    try:
        (found,) = csv.reader([text], skipinitialspace=True)
    except (csv.Error, ValueError) as error:
        raise OutputError(f"this is no line of CSV ({error})", line) from None
    return _bounded_cells([cell.strip() for cell in found], line)


def _bounded_cells(found: Sequence[str], line: Line) -> tuple[str, ...]:
    if len(found) > _MAX_CELLS:
        raise OutputError(f"more than {_MAX_CELLS} values", line)
    return tuple(found)


def _name(field: str) -> str:
    return field.strip().lower()


def _header(line: Line, known: frozenset[str]) -> tuple[str, ...] | None:
    matches = [_COLUMN.fullmatch(cell) for cell in cells(line)]
    names = tuple(match[1].lower() for match in matches if match is not None)
    return names if len(names) == len(matches) and known & set(names) else None


def _fit_to_columns(row: Row, columns: tuple[str, ...] | None) -> Row:
    """The row, with a process's name joined again: nvidia-smi does not quote its commas."""
    excess = len(row.cells) - len(columns) if columns is not None else 0
    if columns is None or excess == 0:
        return row
    at = next((columns.index(it) for it in ("process_name", "name") if it in columns), None)
    if excess < 0 or at is None or "pid" not in columns:
        raise OutputError(
            f"expected {len(columns)} values, here are {len(row.cells)}: the output is cut, or "
            "these are not the fields that were asked",
            row.line,
        )
    name = ", ".join(row.cells[at : at + excess + 1])
    return Row(row.line, (*row.cells[:at], name, *row.cells[at + excess + 1 :]))
