"""The report and the value parsers that rocm-smi and amd-smi share."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

from roles.hardware.outputs.record import GpuRecord
from roles.hardware.outputs.text import MAX_NAME_LENGTH, Line, OutputError
from roles.hardware.outputs.values import pci_address as normal_pci_address

# (GPU, GPU, value) with the first index smaller than the second.
Pairs = tuple[tuple[int, int, str], ...]

# One cell of a matrix of GPUs: row, column, value, and the line that says it.
Cell = tuple[int, int, str, Line | None]

_LINK_TYPES = {"XGMI", "PCIE"}
# rocm-smi prints XXXX for a link that it could not read.
_NO_LINK_LABELS = {"XXXX", "N/A", "UNKNOWN", "INTERNAL", "NOT_APPLICABLE", "NOT_DEFINED"}
_NO_VALUE = {"", "XXXX", "N/A", "NONE", "UNKNOWN", "UNSUPPORTED"}
# Two readings of these may differ in one text; two values of any other field are a contradiction.
_CHANGING = {
    "memory_used_mib",
    "memory_free_mib",
    "power_limit_w",
    "temperature_c",
    "utilization_percent",
}
# Lines that mark an omission, in documentation or at the end of a copy.
_OMISSION = re.compile(r"\s*(?:\.\.\.|…|\[(?=[a-z ]*truncated)[a-z ]*\]),?\s*")
_RECORD_FIELDS = {field.name for field in fields(GpuRecord)}


@dataclass(frozen=True)
class AmdReport:
    """The report of rocm-smi or amd-smi: the GPUs by index, and the links of pairs.

    `links` holds "XGMI" or "PCIE", `weights` and `hops` the driver's numbers (a weight of 15 is
    one XGMI hop). A pair that the output does not mention is in none of them.
    """

    gpus: tuple[GpuRecord, ...]
    links: Pairs = ()
    weights: tuple[tuple[int, int, int], ...] = ()
    hops: tuple[tuple[int, int, int], ...] = ()


class Gpus:
    """The GPUs of one output, collected line by line."""

    def __init__(self) -> None:
        self._fields: dict[int, dict[str, object]] = {}
        self._defaults: dict[int, dict[str, object]] = {}

    def add(self, index: int, line: Line | None = None, **values: object) -> None:
        """Add a line's values of a GPU; OutputError if an earlier line contradicts them."""
        known = self._fields.setdefault(index, {})
        for field, value in values.items():
            assert field in _RECORD_FIELDS, field
            if value is None:
                continue
            if field not in _CHANGING and known.get(field, value) != value:
                raise OutputError(f"GPU {index} has two values of {field}", line)
            known[field] = value

    def add_default(self, index: int, **values: object) -> None:
        """Add values that count only without a better source."""
        self._defaults.setdefault(index, {}).update(values)

    def records(self) -> tuple[GpuRecord, ...]:
        """The GPUs in the order of their indexes."""
        return tuple(
            GpuRecord(**{**self._defaults.get(index, {}), **values, "index": index})  # type: ignore[arg-type]
            for index, values in sorted(self._fields.items())
        )


def value_or_none(value: str) -> str | None:
    """The value without surrounding blanks; None if the tool prints a placeholder."""
    value = value.strip()
    denied = value.startswith("AMDSMI_STATUS_")
    # No real value is longer.
    return None if denied or len(value) > MAX_NAME_LENGTH or value.upper() in _NO_VALUE else value


def whole_number(value: str, line: Line | None) -> int | None:
    """A whole number; None for a placeholder, OutputError for anything else."""
    text = value_or_none(value)
    if text is None:
        return None
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise OutputError(f"{value.strip()[:40]!r} is no whole number", line)
    return int(text)


def numa_node(value: str, line: Line | None) -> int | None:
    """A NUMA node; None for -1, which means no node in Linux."""
    node = whole_number(value, line)
    return None if node is None or node < 0 else node


def bytes_to_mib(value: str, line: Line | None) -> int | None:
    """A count of bytes in MiB, rounded to the nearest."""
    count = whole_number(value, line)
    return None if count is None else round(count / 1024**2)


def watts(value: str, line: Line | None) -> float | None:
    """A power in watts, with or without its unit."""
    text = value_or_none(value)
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?) ?W?", text)
    if match is None:
        raise OutputError(f"{text[:40]!r} is no power in watts", line)
    return float(match[1])


def pci_address(value: str, line: Line | None) -> str | None:
    """A PCI address in lower case with its domain, "0000" if the tool printed none."""
    text = value_or_none(value)
    if text is None:
        return None
    address = normal_pci_address(text)
    if address is None:
        raise OutputError(f"{text[:40]!r} is no PCI address", line)
    return address


def device_id(value: str, line: Line | None) -> str | None:
    """AMD's PCI id of a device, "0x74a1" as "1002:74a1"."""
    text = value_or_none(value)
    if text is None:
        return None
    match = re.fullmatch(r"0x([0-9a-fA-F]{4})", text)
    if match is None:
        raise OutputError(f"{text[:40]!r} is no PCI device id", line)
    return f"1002:{match[1].lower()}"


def architecture(value: str) -> str | None:
    """The graphics version, "gfx942"."""
    text = value.strip()
    return text if re.fullmatch(r"gfx[0-9][0-9a-f]{2,4}", text) else None


def matrix_row(
    row: int, columns: Sequence[int], values: list[str], line: Line, last: bool
) -> Iterator[Cell]:
    """The cells of one row of a matrix; OutputError if there are too few or too many.

    The last value of an output may be cut, so it is left out: the other GPU's row has the same
    value, and at the end of a complete matrix it is that of a GPU with itself.
    """
    if last:
        columns = columns[: max(len(values) - 1, 0)]
        values = values[:-1]
    if len(values) != len(columns):
        raise OutputError(f"{len(values)} values for {len(columns)} GPUs", line)
    for column, value in zip(columns, values, strict=True):
        yield row, column, value, line


def symmetric(cells: Iterable[Cell]) -> dict[tuple[int, int], str]:
    """The cells of a matrix of GPUs by pair; OutputError if its two halves disagree."""
    pairs: dict[tuple[int, int], str] = {}
    for row, column, value, line in cells:
        if row == column:
            continue
        pair = (min(row, column), max(row, column))
        if pairs.setdefault(pair, value) != value:
            raise OutputError(f"GPU {row} to {column} is {value}, but back {pairs[pair]}", line)
    return pairs


def has_link_types(cells: Iterable[Cell]) -> bool:
    """Whether a matrix is one of link types."""
    return any(value in _LINK_TYPES for _, _, value, _ in cells)


def link_pairs(cells: Iterable[Cell]) -> Pairs:
    """The links of a matrix of link types; OutputError for a type that AMD's tools do not know."""
    known = []
    for row, column, value, line in cells:
        label = value.strip().upper()
        if row != column and label not in _LINK_TYPES | _NO_LINK_LABELS:
            raise OutputError(f"{value[:40]!r} is no type of link", line)
        known.append((row, column, label, line))
    pairs = symmetric(known)
    return tuple((*pair, label) for pair, label in sorted(pairs.items()) if label in _LINK_TYPES)


def number_pairs(
    cells: Iterable[Cell],
) -> tuple[tuple[int, int, int], ...]:
    """The numbers of a matrix; a pair without one is left out."""
    lines = {}
    for row, column, _, line in (listed := list(cells)):
        lines[min(row, column), max(row, column)] = line
    numbers = [
        (*pair, whole_number(value, lines[pair]))
        for pair, value in sorted(symmetric(listed).items())
    ]
    return tuple((i, j, number) for i, j, number in numbers if number is not None)


def csv_cells(line: Line) -> list[str]:
    """The cells of one line of CSV."""
    try:
        return next(csv.reader([line.text]), [])
    except csv.Error as error:
        raise OutputError(f"this is no CSV: {error}", line) from None


def read_json(lines: list[Line]) -> object:
    """The JSON document in the lines, from the first line that opens one.

    Surrounding warnings are skipped. Omissions as in documentation ("...", a comma before a
    bracket) are accepted, and a cut document ends with its last complete line. OutputError for
    anything else, and for an object with a repeated key.
    """
    start = next((i for i, line in enumerate(lines) if line.text.lstrip()[:1] in ("{", "[")), None)
    if start is None:
        raise OutputError("no JSON in the output")
    document = lines[start:]
    try:
        return _decode("\n".join(line.text for line in document))
    except ValueError as error:
        try:
            return _decode(_repaired(document))
        except ValueError:
            raise _json_error(error, document) from None


def _decode(text: str) -> object:
    try:
        # raw_decode ignores text of a shell or a log after the document.
        value, _ = json.JSONDecoder(object_pairs_hook=_without_duplicates).raw_decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _repaired(document: list[Line]) -> str:
    """The document without marks of omissions, with its brackets closed."""
    texts = [line.text for line in document if not _OMISSION.fullmatch(line.text)]
    text = re.sub(r",(\s*[]}])", r"\1", "\n".join(texts))
    if _closing(text) == "":
        return text
    if texts and texts[-1][-1] not in ",{}[]":
        texts.pop()  # Its value may be cut.
    text = re.sub(r",(\s*[]}])", r"\1", "\n".join(texts))
    closing = _closing(text)
    return "" if closing is None else text.rstrip().rstrip(",") + closing


def _closing(text: str) -> str | None:
    """The brackets that would close `text`; None if brackets do not match or a string or key is
    open."""
    stack: list[str] = []
    bare = re.sub(r'"(?:[^"\\\n]|\\.)*("?)', r'"\1', text)
    if bare.count('"') % 2 or bare.rstrip()[-1:] == ":":
        return None
    for character in bare:
        if character in "{[":
            stack.append("}" if character == "{" else "]")
        elif character in "}]" and (not stack or stack.pop() != character):
            return None
    return "".join(reversed(stack))


def _json_error(error: ValueError, document: list[Line]) -> OutputError:
    if isinstance(error, json.JSONDecodeError) and document:
        at = document[min(error.lineno, len(document)) - 1]
        return OutputError(f"this is no JSON: {error.msg}", at)
    return OutputError(f"this is no JSON that can be read: {error}")
