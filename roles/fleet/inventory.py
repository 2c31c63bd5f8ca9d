"""Checks an inventory file and builds its fleet, before pyinfra connects to a host."""

import os
from pathlib import Path

from roles.declaration import Declaration
from roles.declaration.plain import is_read_plainly, read_plain
from roles.fleet.build import build
from roles.fleet.fleet import Fleet


class InventoryFileError(ValueError):
    """An inventory file that raises an error; the message names the file and the error."""


def check(file: str) -> None:
    """Refuse this inventory if anything in it is wrong; to be called in an inventory's last line.

    No host is contacted. The GPUs of a host may still be unknown, as deploys/discover.py records
    them.
    """
    if is_read_plainly():
        return
    # pyinfra runs the file. It is imported here only, as showing a plan does not need it.
    from roles.fleet.checked import check_in_pyinfra

    check_in_pyinfra(file)


def load(file: str, secrets: bool = True, hardware: bool = True, clusters: bool = False) -> Fleet:
    """The fleet that an inventory file declares; no host is contacted. For the options see `build`.

    Raises DeclarationError with every problem in it, InventoryFileError where it does not run,
    FileNotFoundError where there is no file.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{file}: there is no such inventory file")
    return build(read_plain(path) or _read_as_pyinfra_does(file), secrets, hardware, clusters)


def file_error(file: str, error: Exception) -> str:
    """Why an inventory file, or one that it runs, does not run: its path, the line and what was
    raised."""
    trace, line = error.__traceback__ or getattr(error, "_traceback", None), None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        file, line = error.filename or file, error.lineno
    name = os.path.relpath(file)
    place = f"{name}, line {line}" if line else name
    return f"{place}: {type(error).__name__}: {error}\nNothing was done: fix this file first."


def _read_as_pyinfra_does(file: str) -> Declaration:
    from pyinfra_cli.exceptions import UnexpectedExternalError

    from roles.declaration.inventory import read

    try:
        return read(file)
    except UnexpectedExternalError as error:
        raise InventoryFileError(file_error(error.filename, error.exception)) from None
    except (SyntaxError, UnicodeDecodeError) as error:
        raise InventoryFileError(file_error(file, error)) from None
