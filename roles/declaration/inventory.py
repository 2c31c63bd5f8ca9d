"""Inventory files, read as pyinfra reads them; no host is contacted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyinfra.api import Inventory, State
from pyinfra.context import ctx_state
from pyinfra_cli.inventory import make_inventory_from_files
from pyinfra_cli.util import exec_file

from roles.declaration.declaration import Declaration, DeclaredHost
from roles.declaration.plain import named_twice, ours
from roles.declaration.problems import DeclarationError, merged
from roles.declaration.recordings import recorded

# The name under which the pyinfra state of `read` says which file it is for.
_READING = "pyinfra_llm_reading"


def read(file: str) -> Declaration:
    """What an inventory file declares.

    Raises DeclarationError where it contradicts itself, FileNotFoundError where there is no file.
    """
    path = Path(file).resolve()
    if not path.is_file():
        # pyinfra would take the name of a missing file for the name of a host.
        raise FileNotFoundError(f"{file}: there is no such inventory file")
    # A state of its own: pyinfra notes there which file it runs, its own included.
    state = State()
    setattr(state, _READING, str(path))
    with ctx_state.use(state):
        inventory = make_inventory_from_files(str(path), cwd=str(Path.cwd()))
        twice = named_twice(exec_file(str(path), return_locals=True))
    if twice:
        raise DeclarationError(path.stem, twice)
    return declaration(path, inventory)


def is_reading(file: str) -> bool:
    """Whether the inventory file runs because `read` reads it."""
    return getattr(ctx_state.get(), _READING, None) == str(Path(file).resolve())


def declaration(file: Path, inventory: Inventory) -> Declaration:
    """What an inventory file says under our key, on each level of its data, and its recording."""
    groups: dict[str, Mapping[str, Any]] = {}
    hosts = {}
    for host in inventory:
        data: dict[str, Any] = {}
        for group in host.groups:
            if group not in groups:
                groups[group] = ours(inventory.get_group_data(group), f"group {group}")
            data = merged(data, groups[group])
        own = inventory.get_host_data(host.name)
        data = merged(data, ours(own, f"host {host.name}"))
        reached_by = str(own.get("ssh_hostname") or host.name)
        hosts[host.name] = DeclaredHost(frozenset(host.groups), data, reached_by)
    return Declaration(file.stem, ours(inventory.get_data(), "all"), hosts, recorded(file))
