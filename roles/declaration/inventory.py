"""Reads inventory files as pyinfra does; no host is contacted."""

import contextlib
import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pyinfra.api import Inventory, State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_state
from pyinfra_cli.exceptions import UnexpectedExternalError
from pyinfra_cli.inventory import make_inventory_from_files
from pyinfra_cli.util import exec_file

from roles.declaration import time_limit
from roles.declaration.declaration import ROLES, Declaration, DeclaredHost
from roles.declaration.files import InventoryFileError, file_error, inventory_file
from roles.declaration.plain import missing_check, own_data, ssh_data
from roles.declaration.problems import DeclarationError, merged
from roles.declaration.recordings import recorded
from roles.declaration.shape import KEY, data_problems, shape_problems

# The attribute of pyinfra's state that holds the file which `read` reads.
_READING = "pyinfra_llm_reading"
# The attribute that says that the file has called `check`.
_CALLED = "pyinfra_llm_called"


def read(file: str, group_data: Sequence[str] = ()) -> Declaration:
    """What an inventory file declares, with additional folders of group data.

    Raises DeclarationError where its shape is wrong, InventoryFileError where it does not run or is
    no file.
    """
    path = inventory_file(file)
    return declaration(path, _inventory(path, group_data))


def read_hosts(file: str) -> Inventory:
    """The hosts of an inventory file with pyinfra's own data, such as where ssh reaches them.

    Raises as `read` does.
    """
    return _inventory(inventory_file(file), ())


def _inventory(path: Path, group_data: Sequence[str]) -> Inventory:
    # A state of its own, because pyinfra records the file that it runs in its state.
    state = State()
    setattr(state, _READING, str(path))
    with ctx_state.use(state), _errors_named(path, state):
        problems = shape_problems(exec_file(str(path), return_locals=True))
        problems += missing_check(getattr(state, _CALLED, False))
        if problems:
            raise DeclarationError(path.stem, problems)
        return make_inventory_from_files(
            str(path), cwd=str(Path.cwd()), group_data_directories=list(group_data)
        )


@contextlib.contextmanager
def _errors_named(path: Path, state: State) -> Iterator[None]:
    """Whatever an inventory file, or one of group data, raises becomes an InventoryFileError; it
    may not even end the run."""
    try:
        with time_limit.load_limit(time_limit.LOAD_S):
            yield
    except (DeclarationError, KeyboardInterrupt):
        raise
    except UnexpectedExternalError as error:
        raise InventoryFileError(file_error(error.filename, error.exception)) from None
    except PyinfraError as error:
        name = os.path.relpath(path)
        raise InventoryFileError(f"{name}: {error}\nNothing was done: fix it first.") from None
    except BaseException as error:
        # pyinfra keeps the name of a file that it could not compile.
        file = state.current_exec_filename or str(path)
        raise InventoryFileError(file_error(file, error)) from None


def _lost_group_data(inventory: Inventory) -> Iterator[str]:
    """Group data of ours for groups without a host, which pyinfra would ignore."""
    groups = {name for host in inventory for name in host.groups}
    for name, data in inventory.group_data.items():
        if KEY in data and name not in groups:
            close = difflib.get_close_matches(name, {*groups, *ROLES}, n=1)
            hint = f"did you mean {close[0]}?" if close else "correct the name, or remove it"
            yield f"group_data/{name}.py: no host is in the group {name}; {hint}"


def is_reading(file: str) -> bool:
    """Whether `read` runs this inventory file; records that the file has called `check`."""
    state = ctx_state.get()
    if getattr(state, _READING, None) != os.path.realpath(file):
        return False
    setattr(state, _CALLED, True)
    return True


def declaration(file: Path, inventory: Inventory) -> Declaration:
    """What an inventory file declares under our key, on each level of its data, and its recording.

    Raises DeclarationError where the data of a level is malformed.
    """
    problems = data_problems("all", inventory.get_data())
    groups = {name: inventory.get_group_data(name) for host in inventory for name in host.groups}
    for name, data in groups.items():
        problems += data_problems(name, data)
    problems += _lost_group_data(inventory)
    for host in inventory:
        problems += data_problems(f"hosts[{host.name}]", inventory.get_host_data(host.name))
    if problems:
        raise DeclarationError(file.stem, problems)
    hosts = {}
    for host in inventory:
        data: dict[str, Any] = {}
        for group in host.groups:
            data = merged(data, own_data(groups[group]))
        own = inventory.get_host_data(host.name)
        data = merged(data, own_data(own))
        reached_by = str(own.get("ssh_hostname") or host.name)
        levels = (inventory.get_data(), *(groups[group] for group in host.groups), own)
        hosts[host.name] = DeclaredHost(frozenset(host.groups), data, reached_by, ssh_data(*levels))
    return Declaration(file.stem, own_data(inventory.get_data()), hosts, recorded(file))
