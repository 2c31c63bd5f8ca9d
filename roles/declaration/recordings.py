"""Files beside an inventory: its recorded hardware (hardware/INVENTORY.yaml) and its saved plan."""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roles.checks import replace_file
from roles.declaration.problems import DeclarationError
from roles.hardware import read_recording, recorded_hardware, recording_with
from roles.host import path_exists, read_text
from roles.plan import check_saved


def recording_of(file: Path) -> Path:
    """The file of the recorded hardware of an inventory's hosts."""
    return file.parent / "hardware" / f"{file.stem}.yaml"


def saved_plan_of(file: Path) -> Path:
    """The file of the saved plan of an inventory, which may not exist."""
    return file.parent / "plans" / f"{file.stem}.yaml"


def recorded(file: Path) -> Mapping[str, Any]:
    """The recorded hardware of an inventory, by host; DeclarationError where it is damaged."""
    recording = recording_of(file)
    if not path_exists(recording):
        return {}
    try:
        text = read_text(recording)
        try:
            entries = read_recording(text)
        except ValueError as error:
            raise ValueError(f"{recording} {error}") from None
    except ValueError as error:
        problem = f"{error}; delete the file and record it anew: deploys/discover.py"
        raise DeclarationError(file.stem, [problem]) from None
    problems = [
        f"{recording}: {name}: is no host's hardware; delete the entry"
        for name, entry in entries.items()
        if not isinstance(entry, Mapping)
    ]
    if problems:
        raise DeclarationError(file.stem, problems)
    return entries


def saved_plan(file: Path) -> str | None:
    """The text of an inventory's saved plan, None where there is none; DeclarationError where it is
    damaged."""
    plan = saved_plan_of(file)
    if not path_exists(plan):
        return None
    try:
        text = read_text(plan)
        try:
            check_saved(text)
        except ValueError as error:
            raise ValueError(f"{plan} {error}") from None
        return text
    except ValueError as error:
        problem = f"{error}; save it again with --save (python -m roles.topology fleet)"
        raise DeclarationError(file.stem, [problem]) from None


def record(file: Path, entries: Mapping[str, Any]) -> None:
    """Write entries of hosts into a recording, and keep those of other hosts.

    Several runs may record at once without losing entries. ValueError, and nothing is written,
    where an entry could not be read again.
    """
    for name, entry in entries.items():
        check_entry(name, entry)
    file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        known = read_text(file) if path_exists(file) else ""
        write_whole(file, recording_with(known, entries))
    finally:
        # Unlocked explicitly: under gevent os.close waits for the event loop, which the next lock
        # would block.
        fcntl.flock(folder, fcntl.LOCK_UN)
        os.close(folder)


def check_entry(name: str, entry: Any) -> None:
    """ValueError where what a host reports cannot be recorded."""
    try:
        recorded_hardware(entry)
    except ValueError as error:
        raise ValueError(f"{name} reports what cannot be recorded: {error}") from None


def write_whole(file: Path, text: str) -> None:
    """Write a file atomically; ValueError where it cannot be written."""
    try:
        replace_file(file, text)
    except OSError as error:
        raise ValueError(f"{file} cannot be written: {error.strerror}; make room for it") from None
