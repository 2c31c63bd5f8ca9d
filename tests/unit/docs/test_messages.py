"""Every message of the troubleshooting page is one that the code can print."""

import ast
import builtins
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyinfra
import pytest

from tests.unit.docs.pages import ROOT, prose

PAGE = ROOT / "docs/troubleshooting.md"
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)
# The field or the file that a message begins with, which the code puts before it.
_PLACE = re.compile(r"^(?:…: |[a-z_]+(?:\[\w+\])?(?:\.[a-z_]+)*: |config: |inventories/\S+ )")
# What of pyinfra speaks to our users.
PYINFRA = ("api", "connectors")
_OPEN = re.compile(r"…|\bKEY\b|\bX\b")


@cache
def texts() -> str:
    """All texts of this project and of pyinfra's hands, a line each."""
    folders = [ROOT / "roles", *(Path(pyinfra.__file__).parent / one for one in PYINFRA)]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    found = [text for file in files for text in texts_of(ast.parse(file.read_text()))]
    return "\n".join(text.replace("\n", " ") for text in found)


def texts_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [one.value if isinstance(one, ast.Constant) else "…" for one in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[sd]|\{\}", "…", node.value)


def pattern(message: str) -> str:
    """What the fixed parts of a message are in one text."""
    fixed = [part.strip() for part in _OPEN.split(_PLACE.sub("", message))]
    return ".*".join(re.escape(part) for part in fixed if part)


def can_be_printed(message: str) -> bool:
    """Whether one text has all of it, or others have its parts: texts are put into each other."""
    whole = hasattr(builtins, message) or re.search(pattern(message), texts()) is not None
    parts = [one for one in re.split(r"[:;] ", _PLACE.sub("", message)) if pattern(one)]
    return whole or (len(parts) > 1 and all(map(can_be_printed, parts)))


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_one_of_the_code(message: str):
    assert can_be_printed(message), pattern(message)


@pytest.mark.parametrize(
    "message",
    ["… would both hear on …", "services[0].model: … suits no host", "EndOfFileError"],
)
def test_a_message_that_nobody_prints_is_found(message: str):
    assert not can_be_printed(message)


def test_all_messages_are_looked_at():
    rows = [line for line in prose(PAGE).splitlines() if line.startswith("| `")]
    assert len(MESSAGES) == len(rows) > 20
