"""Inventory files that cannot be read, or that do not run: what is wrong, where, what to do. Pure,
except that paths are looked up."""

import os
from pathlib import Path
from types import TracebackType

from roles.checks import printable
from roles.declaration.time_limit import LoadTimeoutError

_LENGTH = 500


class InventoryFileError(ValueError):
    """An inventory file that is none, or that raises an error; the message names both."""


def file_problem(file: str) -> str | None:
    """Why there is no inventory file at a path, with a remedy; None if there is one."""
    if os.path.isfile(file):
        return None
    if os.path.isdir(file):
        return "is a folder; name the inventory file in it"
    if os.path.lexists(file):
        return "is no regular file, or a link that leads to none; name the inventory file"
    return "there is no such inventory file; correct the path"


def inventory_file(file: str) -> Path:
    """The whole path of an inventory file; InventoryFileError if it is none."""
    if problem := file_problem(file):
        raise InventoryFileError(f"{printable(file):.300}: {problem}\nNothing was done.")
    return Path(os.path.realpath(file))


def file_error(file: str, error: BaseException) -> str:
    """Why an inventory file, or one that it runs, does not run: its path, the line and what was
    raised."""
    trace = error.__traceback__ or getattr(error, "_traceback", None)
    file, line = _place(file, trace)
    if isinstance(error, SyntaxError):
        file, line = error.filename or file, error.lineno
    name = printable(os.path.relpath(file))
    place = f"{name}, line {line}" if line else name
    return f"{place}: {_what(error)}\nNothing was done: fix this file first."


def _place(file: str, trace: TracebackType | None) -> tuple[str, int | None]:
    """The outermost file that was run, and its line; the given one if it is not known."""
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name == "<module>":
            return code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    return file, None


def _what(error: BaseException) -> str:
    kind = type(error).__name__
    if isinstance(error, LoadTimeoutError):
        return str(error)
    if not isinstance(error, Exception):
        return f"ends the program ({kind}); remove that, an inventory only declares"
    try:
        text = printable(str(error))
    except Exception:
        return f"raises {kind}"
    return f"{kind}: {text:.{_LENGTH}}" if text else f"raises {kind}"
