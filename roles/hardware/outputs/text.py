"""Cleans a program's output for parsing, and defines the error that names one of its lines."""

import re
from dataclasses import dataclass

# CSI (colours, cursor), OSC (titles, links) and two-character escape sequences of ECMA-48.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_SHOWN_CHARACTERS = 120
# Bounds, as a host may print anything: no real output has more.
MAX_GPUS, MAX_SLICES, MAX_NAME_LENGTH = 512, 64, 300


@dataclass(frozen=True)
class Line:
    """One line with its number in the output, from 1; tabs are kept, trailing blanks are not."""

    number: int
    text: str


class OutputError(ValueError):
    """The text is not a valid output; the message names the line."""

    def __init__(self, problem: str, line: Line | None = None) -> None:
        where = (
            ""
            if line is None
            else f"line {line.number}: {line.text.strip()[:_SHOWN_CHARACTERS]!r}: "
        )
        super().__init__(f"{where}{problem}")


def read_lines(text: str) -> list[Line]:
    """The lines that are not blank, without escape sequences, control characters and CRs."""
    plain = _ESCAPE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    cleaned = (_printable(line) for line in plain.split("\n"))
    return [Line(number, line) for number, line in enumerate(cleaned, start=1) if line.strip()]


def _printable(line: str) -> str:
    line = line.replace("\xa0", " ")
    if not line.replace("\t", " ").isprintable():
        line = "".join(c for c in line if c.isprintable() or c == "\t")
    return line.rstrip()
