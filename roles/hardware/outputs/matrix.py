"""Parses the matrices of `nvidia-smi topo`: the label of each pair of devices.

Pasted outputs lose blanks, line ends and their last lines. So cells are read in order, not by
position; cells without a blank between them are split; and both labels of a pair must agree. An
uncertain value is an error, never a guess.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise

from roles.hardware.outputs.text import Line, OutputError, read_lines

SELF = "X"
_DEVICE = r"(?:GPU|NIC)\d{1,4}"
_ATTRIBUTE = r"CPU\s*Affinity|NUMA\s*Affinity|GPU\s*NUMA\s*ID"
# What drivers since 525 print after the labels, for a paste that lost its heading.
_ATTRIBUTES = ("CPU Affinity", "NUMA Affinity", "GPU NUMA ID")
# Where a heading begins that lost the blank before it.
_GLUED = re.compile(rf"(?<=\S)(?={_DEVICE}|mlx\d|{_ATTRIBUTE})")
# The first heading that names no device, whole or cut off by the end of the line.
_AFTER_DEVICES = re.compile(r"\s(?:(?:CPU|NUMA|GPU)(?:\s|$)|(?:C|CP|N|NU|NUM|G|GP|NI|NIC)$)")
_DEVICE_HEADING = re.compile(r"(?=.*\d)(?!NV\d+$)[A-Za-z][\w.-]{0,63}")
_GPU = re.compile(r"GPU\d{1,4}")
_ROW_NAME = re.compile(_DEVICE)
# More devices than any host has; characters of a row, and lines that a heading is broken into.
_MAX_COLUMNS, _MAX_ROW_LENGTH, _MAX_PIECES = 256, 4000, 20
_LEGEND = re.compile(r"^\s*(?:(?:NIC )?Legend:?\s*$|[A-Z][A-Z0-9#]*\s+=\s)")
# The rest of a row that a terminal broke at its width.
_PIECE = re.compile(r"[\sA-Z0-9,/-]+")
_CUT_LABEL = re.compile(r"[A-Z]{0,4}")
# A colour code whose escape character a copy lost or spelt out.
_COLOUR = re.compile(r"(?:\^\[|\\x1b|\\u001b|\\033|\\e)?\[[0-9;]*m")


@dataclass(frozen=True)
class Row:
    """One device's row: its labels in the order of the columns, and the text after them."""

    line: Line
    labels: tuple[str, ...]
    rest: str


@dataclass(frozen=True)
class Matrix:
    """A matrix whose rows agree with each other; `rows` may lack devices if the output was cut.

    `cut_row` names the row in which the output ends, if it ends in one.
    """

    columns: tuple[str, ...]
    attributes: tuple[str, ...]
    rows: dict[str, Row]
    cut_row: str | None

    def label(self, one: str, other: str) -> str | None:
        """The label of two devices, from either one's row; None if no row has it."""
        for a, b in ((one, other), (other, one)):
            position = self._places[b]
            if a in self.rows and position < len(self.rows[a].labels):
                return self.rows[a].labels[position]
        return None

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.columns)}

    def gpus(self) -> list[str]:
        """The columns that are GPUs, in the order of their index."""
        names = [name for name in self.columns if _GPU.fullmatch(name)]
        return sorted(names, key=gpu_index)

    @cached_property
    def gpu_pairs(self) -> tuple[tuple[int, int, str], ...]:
        """Each pair of GPUs once, the lower index first, sorted.

        Raises OutputError if the output was cut before a pair was shown.
        """
        names = self.gpus()
        pairs = [(a, b, self.label(a, b)) for i, a in enumerate(names) for b in names[i + 1 :]]
        for a, b, label in pairs:
            if label is None:
                last = list(self.rows.values())[-1].line
                raise OutputError(f"the output ends before the link of {a} and {b}", last)
        return tuple((gpu_index(a), gpu_index(b), label) for a, b, label in pairs if label)


@dataclass
class _Block:
    """The consecutive lines of one matrix, while they are collected."""

    heading: Line | None
    columns: tuple[str, ...]
    attributes: tuple[str, ...]
    cropped: bool = False
    lines: list[tuple[str, Line]] = field(default_factory=list)
    ended: bool = False


def gpu_index(name: str) -> int:
    """12 of "GPU12"; OutputError for a number that no GPU has."""
    digits = name.removeprefix("GPU")
    if len(digits) > 4:
        raise OutputError(
            f"GPU{digits[:10]}… is no GPU's index: give the whole output of the command"
        )
    return int(digits)


def read_matrix(text: str, labels: str, other_labels: str) -> Matrix:
    """The one matrix in the text that has labels of the pattern `labels`.

    Matrices that have only labels of the pattern `other_labels` are passed over; the same matrix
    twice is read once. Raises OutputError if there is none, if two differ or if one is damaged.
    """
    blocks = [block for block in _blocks(_tidy_lines(text), labels) if block.lines]
    blocks = [block for block in blocks if block.columns] or blocks
    own = [b for b in blocks if _has_labels(b, labels) or not _has_labels(b, other_labels)]
    if not own:
        raise OutputError(
            "no matrix of GPUs of that kind (a line 'GPU0 GPU1 ...' and a row for each GPU): "
            "give the whole output of the command"
        )
    first, *others = [_checked_matrix(block, labels, text.endswith(("\n", "\r"))) for block in own]
    for other in others:
        if (other.columns, other.gpu_pairs) != (first.columns, first.gpu_pairs):
            line = next(iter(other.rows.values())).line
            raise OutputError("a second matrix that differs: give one host's output", line)
    return first


def _tidy_lines(text: str) -> list[Line]:
    lines = read_lines(text)
    tidy = (Line(ln.number, re.sub(r"[|│]", " ", _COLOUR.sub("", ln.text))) for ln in lines)
    return [line for line in tidy if line.text.strip()]


def _blocks(lines: list[Line], labels: str) -> list[_Block]:
    blocks: list[_Block] = []
    block: _Block | None = None
    for line in lines:
        if _LEGEND.match(line.text):
            if block:
                block.ended = True
            block = None
            continue
        if block and _join_heading(block, line):
            continue
        heading = _read_heading(line)
        if heading and (block is None or len(heading.columns) > 1 or heading.attributes):
            if block:
                block.ended = True
            block = heading
            blocks.append(block)
        elif name := _row_name(line, block, labels):
            if block is None:
                block = _Block(None, (), _ATTRIBUTES)
                blocks.append(block)
            block.lines.append((name, line))
        elif block:
            _join_row(block, line, labels)
    return blocks


def _read_heading(line: Line) -> _Block | None:
    start = re.search(r"(?:^|\s)(?=GPU\d)", line.text)
    if not start:
        return None
    spaced = _GLUED.sub(" ", line.text[start.end() :])
    after = _AFTER_DEVICES.search(spaced)
    columns = spaced[: after.start() if after else len(spaced)].split()
    # A heading broken inside its last number, as "NIC2" of "NIC21".
    broken = len(columns) > 1 and not after and columns[-1] in columns[:-1]
    columns = columns[:-1] if broken else columns
    if len(columns) > _MAX_COLUMNS:
        raise OutputError(f"more than {_MAX_COLUMNS} devices", line)
    if len(set(columns)) < len(columns) or not all(map(_DEVICE_HEADING.fullmatch, columns)):
        return None
    tail = spaced[after.start() :] if after else ""
    attributes = [" ".join(title.split()) for title in re.findall(_ATTRIBUTE, tail)]
    cropped = broken or (bool(after) and not attributes)
    return _Block(line, tuple(columns), tuple(attributes), cropped)


def _join_heading(block: _Block, line: Line) -> bool:
    """Join a heading that a terminal wrapped; return whether the line was part of it."""
    if block.lines or not block.heading or len(line.text) > _MAX_ROW_LENGTH:
        return False
    if line.number - block.heading.number > _MAX_PIECES:
        return False
    joined = _read_heading(Line(block.heading.number, block.heading.text + line.text))
    if not joined or joined.columns[: len(block.columns) - 1] != block.columns[:-1]:
        return False
    before = (len(block.columns), len(block.attributes))
    if (len(joined.columns), len(joined.attributes)) <= before:
        return False
    block.heading, block.columns = joined.heading, joined.columns
    block.attributes, block.cropped = joined.attributes, joined.cropped
    return True


def _row_name(line: Line, block: _Block | None, labels: str) -> str | None:
    """The device of a row's line; after a log prefix a label must follow the name."""
    words = line.text.split()
    label, known = re.compile(f"{labels}|{SELF}"), _column_set(block.columns if block else ())
    names = [word in known or bool(_ROW_NAME.fullmatch(word)) for word in words]
    if names[0] and (block or label.fullmatch("".join(words[1:2]))):
        return words[0]
    prefixed = (
        word
        for is_name, (word, after) in zip(names[1:], pairwise(words[1:]), strict=False)
        if is_name and label.fullmatch(after)
    )
    return next(prefixed, None) if block else None


@lru_cache(maxsize=4)
def _column_set(columns: tuple[str, ...]) -> frozenset[str]:
    return frozenset(columns)


def _join_row(block: _Block, line: Line, labels: str) -> None:
    if not block.lines or not _PIECE.fullmatch(line.text):
        return
    name, row_line = block.lines[-1]
    if len(row_line.text) + len(line.text) > _MAX_ROW_LENGTH:
        return
    row = _read_row(name, row_line, labels)
    attributes = len(block.attributes) if name.startswith("GPU") else 0
    if len(row.labels) + len(row.rest.split()) < len(block.columns) + attributes:
        block.lines[-1] = (name, Line(row_line.number, row_line.text + line.text))


def _read_row(name: str, line: Line, labels: str) -> Row:
    start = re.search(rf"(?:^|\s){re.escape(name)}(?=\s|$)", line.text)
    rest = line.text[start.end() if start else 0 :]
    # Labels may lack blanks between them, and the last one before the affinity.
    unit = rf"(?:{labels}|{SELF})"
    token = re.compile(rf"\s*((?:{unit})+)(?=\s|$|N/A|\d[\d,-]*(?:N/A)?(?:\s|$))")
    found: list[str] = []
    at = 0
    while match := token.match(rest, at):
        found += re.findall(unit, match[1])
        at = match.end()
    return Row(line, tuple(found), rest[at:].strip())


def _has_labels(block: _Block, labels: str) -> bool:
    words = (word for _, line in block.lines for word in line.text.split()[1:])
    return any(re.fullmatch(rf"(?:{labels})+", word) for word in words)


def _checked_matrix(block: _Block, labels: str, line_is_whole: bool) -> Matrix:
    columns = block.columns or tuple(dict.fromkeys(name for name, _ in block.lines))
    if len(columns) > _MAX_COLUMNS:
        raise OutputError(f"more than {_MAX_COLUMNS} devices", block.lines[0][1])
    rows: dict[str, Row] = {}
    for name, line in block.lines:
        if name in rows:
            raise OutputError(f"a second row of {name}", line)
        if name not in columns:
            raise OutputError(f"a row of {name}, which has no column", line)
        rows[name] = _read_row(name, line, labels)
    last = block.lines[-1][0]
    cut = not block.ended and (
        len(rows[last].labels) < len(columns) or any(name not in rows for name in columns)
    )
    if cut:
        labels_end_line = line_is_whole and not block.attributes
        rows[last] = _without_cut_label(rows[last], len(columns), labels_end_line)
    _check_complete(columns, rows, last if cut else None, block)
    _check_agreement(columns, rows)
    return Matrix(columns, block.attributes, rows, None if block.ended else last)


def _without_cut_label(row: Row, columns: int, labels_end_line: bool) -> Row:
    """The row without its last label if that may be cut, as NV1 of NV18."""
    whole = labels_end_line and len(row.labels) == columns
    if row.rest or whole or not row.labels or not row.labels[-1][-1].isdigit():
        return row
    return Row(row.line, row.labels[:-1], row.rest)


def _check_complete(
    columns: tuple[str, ...], rows: dict[str, Row], cut_row: str | None, block: _Block
) -> None:
    gpus = [name for name in columns if name.startswith("GPU")]
    last = columns.index(list(rows)[-1])
    for name in gpus:
        if name not in rows and (cut_row is None or columns.index(name) < last):
            line = block.heading or block.lines[0][1]
            raise OutputError(f"the row of {name} is missing", line)
    for name, row in rows.items():
        count = len(row.labels)
        if count > len(columns) and not block.cropped:
            raise OutputError(f"{count} labels for {len(columns)} columns", row.line)
        # A row that is cut may lack its last labels, but begins with one, as rocm-smi's do not.
        if name == cut_row and not count and row.rest and not _CUT_LABEL.fullmatch(row.rest):
            raise OutputError(f"{row.rest.split()[0]!r} is no label", row.line)
        # A NIC's row repeats the GPUs' rows, and old drivers print it shorter.
        if count < len(columns) and name.startswith("GPU") and name != cut_row:
            found = f": {row.rest.split()[0]!r} is none" if row.rest else ""
            raise OutputError(f"{count} labels for {len(columns)} columns{found}", row.line)


def _check_agreement(columns: tuple[str, ...], rows: dict[str, Row]) -> None:
    shown = [
        (name, column, label)
        for name, row in rows.items()
        for column, label in zip(columns, row.labels, strict=False)
    ]
    for name, column, label in shown:
        if (label == SELF) != (name == column):
            raise OutputError(f"the label {label} in column {column} cannot be", rows[name].line)
    labels = {(name, column): label for name, column, label in shown}
    for name, column, label in shown:
        back = labels.get((column, name), label)
        if back != label:
            problem = f"{name} shows {label} to {column}, which shows {back} back"
            raise OutputError(problem, rows[name].line)
