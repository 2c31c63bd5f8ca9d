"""Puts a program together that a host runs from its standard input: `python3 -`."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


# On a host all texts are one program; here they are modules that can be read and tested.
_IMPORT = re.compile(r"^from roles\.launch\.\w+ import .*$", re.MULTILINE)


def script(program: str, task: Mapping[str, Any]) -> str:
    """The probe's functions, `TASK` (JSON-able data) and a program that uses both, as one text."""
    data = repr(json.dumps(task))
    rest = _IMPORT.sub("", program)
    return f"{part('probe.py')}\nTASK = json.loads({data})\n\n{rest}\n"


def part(name: str) -> str:
    """The text of one of this role's host-side files."""
    return (HERE / name).read_text()


class SecretInput(list[str]):
    """Text for `_stdin` that holds a secret: with -v pyinfra prints the arguments of facts."""

    def __init__(self, text: str) -> None:
        super().__init__([text])

    def __repr__(self) -> str:
        return "*MASKED*"
