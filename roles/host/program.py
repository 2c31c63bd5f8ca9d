"""Builds a program that a host runs from its standard input: `python3 -`. Pure."""

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

# On a host all texts form one program; here they are modules that can be imported and tested.
_IMPORT = re.compile(r"^from roles\.[\w.]+ import (\([^)]*\)|[^(\n]*)$", re.MULTILINE)


def bundle(files: Sequence[Path], task: Mapping[str, Any], end: str = "") -> str:
    """The texts of some host-side modules as one program, with `end` after them.

    `task` is the program's task (JSON-able data). It replaces the line `TASK = {}` of the first
    module that has one; that module imports json.
    """
    text = "\n".join(_IMPORT.sub("", file.read_text()) for file in files)
    data = f"TASK = json.loads({json.dumps(task)!r})"
    return text.replace("\nTASK = {}\n", f"\n{data}\n", 1) + f"\n{end}\n"


class SecretInput(list[str]):
    """A secret text for `_stdin`: its repr is masked, as -v makes pyinfra print facts'
    arguments."""

    def __init__(self, text: str) -> None:
        super().__init__([text])

    def __repr__(self) -> str:
        return "*MASKED*"
