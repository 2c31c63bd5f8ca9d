"""What is kept beside an inventory: inventories/hardware/<inventory>.yaml, and its saved plan."""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roles.declaration.problems import DeclarationError
from roles.hardware import read_recording, recording_with


def recording_of(file: Path) -> Path:
    """Where the recorded hardware of an inventory file's hosts is."""
    return file.parent / "hardware" / f"{file.stem}.yaml"


def saved_plan_of(file: Path) -> Path:
    """Where the saved plan of an inventory file is, if it was saved."""
    return file.parent / "plans" / f"{file.stem}.yaml"


def recorded(file: Path) -> Mapping[str, Any]:
    """The entries of the recorded hardware of an inventory file's hosts; DeclarationError."""
    recording = recording_of(file)
    if not recording.is_file():
        return {}
    try:
        return read_recording(recording.read_text(encoding="utf-8"))
    except ValueError as error:
        problem = f"{error}; delete the file and record it anew: deploys/discover.py"
        raise DeclarationError(str(recording), [problem]) from None


def record(file: Path, entries: Mapping[str, Any]) -> None:
    """Put entries of hosts into a recording, beside those of other hosts; all or nothing.

    Several runs may record at once: each keeps what the others wrote.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        known = file.read_text(encoding="utf-8") if file.is_file() else ""
        write_whole(file, recording_with(known, entries))
    finally:
        # At once: under gevent, os.close waits for the event loop, which the next lock would block.
        fcntl.flock(folder, fcntl.LOCK_UN)
        os.close(folder)


def write_whole(file: Path, text: str) -> None:
    """Write a file so that nobody ever sees a part of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
