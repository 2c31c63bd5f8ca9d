"""Who holds the lab: one at a time.

The holder has a lock on a file for as long as it lives: a test run that dies lets go of it, and the
next `up` clears what it left. A lab started from the command line is held by its own file server,
which lives until `down`.

Another test run may be a guest of the holder, who waits for it before the lab ends. What is not
handed to two at once, such as the bare hosts, has a lock of its own.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from .paths import STATE, LabError

PATH = STATE / "holder"
KEPT = "the command line (end it with `python -m tests.lab down`)"
_held: IO[str] | None = None


class LabBusyError(LabError):
    """Somebody else holds the lab."""


def take(kept: bool) -> None:
    """Take hold of the lab, or say who has it."""
    global _held
    if _held is None:
        STATE.mkdir(parents=True, exist_ok=True)
        file = PATH.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise LabBusyError(f"the lab is up, held by {who()}") from None
        _held = file
    PATH.write_text(KEPT if kept else f"process {os.getpid()}")


def descriptors() -> tuple[int, ...]:
    """What a child gets to hold the lab on behalf of this process."""
    return (_held.fileno(),) if _held else ()


def let_go() -> None:
    """Let go of the lab (a child that got the descriptor goes on holding it)."""
    global _held
    if _held is not None:
        _held.close()
        _held = None


@contextmanager
def locked(name: str, is_shared: bool = False) -> Iterator[None]:
    """Wait for a lock by this name, and have it for a while."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / f"{name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)
        yield


def who() -> str:
    """Who holds the lab, in words."""
    if _held is None and not _locked():
        return "nobody"
    return PATH.read_text().strip()


def held_by_other() -> bool:
    """True if another process (a test run) holds the lab; its own file server does not count."""
    return _held is None and who() not in ("nobody", KEPT)


def _locked() -> bool:
    if not PATH.exists():
        return False
    with PATH.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
