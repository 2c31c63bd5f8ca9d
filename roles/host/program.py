"""Puts a program together that a host runs from its standard input: `python3 -`. Pure: text out."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
PROBE = _HERE / "probe.py"
SERVING = _HERE / "serving.py"
LEGACY = _HERE / "legacy.py"
AWAIT_SERVING = _HERE / "await_serving.py"

# On a host all texts are one program; here they are modules that can be read and tested.
_IMPORT = re.compile(r"^from roles\.[\w.]+ import (\([^)]*\)|[^(\n]*)$", re.MULTILINE)


def bundle(files: Sequence[Path], task: Mapping[str, Any], end: str = "") -> str:
    """The texts of some host-side modules as one program, with `end` after them.

    `task` is what the program is to do (JSON-able data): it replaces the line `TASK = {}` of the
    first module that has it. That module imports json.
    """
    text = "\n".join(_IMPORT.sub("", file.read_text()) for file in files)
    data = f"TASK = json.loads({json.dumps(task)!r})"
    return text.replace("\nTASK = {}\n", f"\n{data}\n", 1) + f"\n{end}\n"


class SecretInput(list[str]):
    """Text for `_stdin` that holds a secret: with -v pyinfra prints the arguments of facts."""

    def __init__(self, text: str) -> None:
        super().__init__([text])

    def __repr__(self) -> str:
        return "*MASKED*"
