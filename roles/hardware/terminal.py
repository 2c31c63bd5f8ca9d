"""Text as programs on a host print it, made fit to parse and to show."""

import re

# CSI (colours, cursor), OSC (titles, links) and two-character escape sequences of ECMA-48.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def clean_lines(text: str) -> list[str]:
    """The lines that say something, without escape sequences, control characters and CRs."""
    plain = _ESCAPE.sub("", text).replace("\r", "\n").replace("\t", " ")
    lines = ["".join(filter(str.isprintable, line)).strip() for line in plain.split("\n")]
    return [line for line in lines if line]
