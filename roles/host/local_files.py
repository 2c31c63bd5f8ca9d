"""Files on the control machine, read so that none of them can hang or fill this process."""

import os
import stat
from pathlib import Path

# Keys, certificates, templates and locks are smaller: a lock of 500 packages with hashes has 1 MB.
MOST_BYTES = 8 * 2**20


def read_file(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """The text of a regular file; ValueError says what is wrong with it and what to do."""
    try:
        return read_bytes(path, most_bytes).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path!s:.200} is not text; name a file of plain text") from None


def read_bytes(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The bytes of a regular file; ValueError says what is wrong with it and what to do."""
    shown = f"{path!s:.200}"
    try:
        data = _bytes(path.expanduser(), most_bytes + 1)
    except FileNotFoundError:
        message = f"{shown} is not there: create it, or correct the path (now at {Path.cwd()})"
        raise ValueError(message) from None
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{shown} cannot be read: {why}; name a file that can") from None
    if len(data) > most_bytes:
        raise ValueError(f"{shown} is larger than {most_bytes} bytes; name the right file")
    return data


def check_private(path: Path) -> None:
    """ValueError where others than the owner have any right to the file."""
    mode = path.expanduser().stat().st_mode & 0o777
    if mode & 0o077:
        raise ValueError(f"others may read {path} (mode {mode:o}): run chmod 600 {path}")


def _bytes(file: Path, count: int) -> bytes:
    # Opening a FIFO would wait for its other end.
    opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(opened).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("Is a directory" if stat.S_ISDIR(mode) else "it is no regular file")
        with open(opened, "rb", closefd=False) as stream:
            return stream.read(count)
    finally:
        os.close(opened)
