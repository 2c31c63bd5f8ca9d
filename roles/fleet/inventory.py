"""Inventory files: read as pyinfra reads them, and checked before pyinfra connects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyinfra.api import Inventory, State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_state
from pyinfra_cli.inventory import make_inventory_from_files
from pyinfra_cli.util import exec_file

from roles.declaration.problems import DeclarationError, merged
from roles.fleet.fleet import Declaration, DeclaredHost, Fleet, build
from roles.hardware import read_recording

KEY = "llm"

_being_checked: set[str] = set()
# The inventory of this run: pyinfra does not tell a deploy which file it read.
checked_file = Path("inventory.py")


class InventoryError(PyinfraError):
    """A DeclarationError as pyinfra shows it: the message alone, exit status 1."""


def check(file: str) -> None:
    """Refuse this inventory if anything in it is wrong. To be the last line of an inventory file.

    pyinfra runs the file and its group data before it connects to a host, and so does this. The
    GPUs of a host may still be unknown: deploys/discover.py is there to record them.
    """
    global checked_file
    path = str(Path(file).resolve())
    if path in _being_checked:
        return
    try:
        load(path, hardware=False)
    except DeclarationError as error:
        raise InventoryError(str(error)) from None
    checked_file = Path(path)


def load(file: str, secrets: bool = True, hardware: bool = True) -> Fleet:
    """The fleet that an inventory file declares; no host is contacted. For the rest see `build`.

    Raises DeclarationError with every problem in it, FileNotFoundError where there is no file.
    """
    path = str(Path(file).resolve())
    if not Path(path).is_file():
        # pyinfra would take the name of a missing file for the name of a host.
        raise FileNotFoundError(f"{file}: there is no such inventory file")
    _being_checked.add(path)
    try:
        # A state of its own: pyinfra notes there which file it runs, its own included.
        with ctx_state.use(State()):
            inventory = make_inventory_from_files(path, cwd=str(Path.cwd()))
            twice = named_twice(exec_file(path, return_locals=True))
    finally:
        _being_checked.discard(path)
    if twice:
        raise DeclarationError(Path(path).stem, twice)
    return build(declaration(Path(path), inventory), secrets, hardware)


def recording_of(file: Path) -> Path:
    """Where the recorded hardware of an inventory file's hosts is."""
    return file.parent / "hardware" / f"{file.stem}.yaml"


def named_twice(attributes: Mapping[str, Any]) -> list[str]:
    """Hosts that a group of the file lists more than once: pyinfra would make one host of them."""
    problems = []
    for group, value in attributes.items():
        hosts = value[0] if isinstance(value, tuple) and value else value
        if group.startswith("_") or not isinstance(hosts, list):
            continue
        names = [host[0] if isinstance(host, tuple) and host else host for host in hosts]
        problems += [
            f"{group}: {name!r} is listed {names.count(name)} times; give each host its own name"
            for name in dict.fromkeys(name for name in names if isinstance(name, str))
            if names.count(name) > 1
        ]
    return problems


def saved_plan_of(file: Path) -> Path:
    """Where the saved plan of an inventory file is, if it was saved."""
    return file.parent / "plans" / f"{file.stem}.yaml"


def declaration(file: Path, inventory: Inventory) -> Declaration:
    """What an inventory file says under our key, on each level of its data, and its recording."""
    hosts = {}
    for host in inventory:
        data: dict[str, Any] = {}
        for group in host.groups:
            data = merged(data, _ours(inventory.get_group_data(group), f"group {group}"))
        own = inventory.get_host_data(host.name)
        data = merged(data, _ours(own, f"host {host.name}"))
        reached_by = str(own.get("ssh_hostname") or host.name)
        hosts[host.name] = DeclaredHost(frozenset(host.groups), data, reached_by)
    return Declaration(file.stem, _ours(inventory.get_data(), "all"), hosts, recorded(file))


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


def _ours(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    ours = data.get(KEY, {})
    if not isinstance(ours, Mapping):
        raise DeclarationError(where, [f"{KEY}: must be a mapping of settings"])
    return ours
