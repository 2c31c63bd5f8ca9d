"""Checks an inventory file and builds its fleet, before pyinfra connects to a host."""

import sys

from roles.declaration import Declaration, inventory_file
from roles.declaration.plain import is_read_plainly, read_plain
from roles.fleet.build import build
from roles.fleet.fleet import Fleet


def check(file: str) -> None:
    """Refuse this inventory if anything in it is wrong; to be called in an inventory's last line.

    No host is contacted. The GPUs of a host may still be unknown, as deploys/discover.py records
    them.
    """
    if file != sys._getframe(1).f_globals.get("__file__"):
        raise ValueError("another file is given; write check(__file__)")
    if is_read_plainly():
        return
    # pyinfra runs the file. It is imported here only, as showing a plan does not need it.
    from roles.fleet.checked import check_in_pyinfra

    check_in_pyinfra(file)


def load(file: str, secrets: bool = True, hardware: bool = True, clusters: bool = False) -> Fleet:
    """The fleet that an inventory file declares; no host is contacted. For the options see `build`.

    Raises DeclarationError with every problem in it, InventoryFileError where it does not run or is
    no file.
    """
    path = inventory_file(file)
    return build(read_plain(path) or _read_as_pyinfra_does(file), secrets, hardware, clusters)


def _read_as_pyinfra_does(file: str) -> Declaration:
    from roles.declaration.inventory import read

    return read(file)
