"""The inventory of a pyinfra run: checked before it connects, and passed on to the deploy."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from pyinfra.api import State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_state
from pyinfra_cli.exceptions import CliError
from pyinfra_cli.util import parse_cli_arg

from roles.declaration import (
    SSH,
    Declaration,
    DeclarationError,
    InventoryFileError,
    inventory_file,
    saved_plan,
)
from roles.declaration.inventory import is_reading, read
from roles.fleet.build import build, unknown_hosts
from roles.fleet.command_line import (
    Command,
    data_problems,
    folder_problems,
    host_problems,
    option_problems,
    overrides,
)
from roles.fleet.fleet import Fleet
from roles.fleet.saved_plan import saved_plan_problem
from roles.fleet.ssh_files import ssh_file_problems
from roles.fleet.targets import target_problems

# The attribute of pyinfra's state that holds the checked inventory for the deploy.
_CHECKED = "pyinfra_llm_checked"
_UNCONFIGURED = """\
{config}: is not here, or does not call configure(); go to the folder that has it, or let it hold
    from roles.stages.configure import configure
    configure()
Nothing was done."""


class RefusedError(PyinfraError, CliError):
    """Ends a run before it does anything; pyinfra prints the message and exits with status 1."""

    def show(self, file: object = None) -> None:
        """Print the message, without the place in our code that pyinfra would add."""
        click.echo(click.style(str(self), fg="red"), err=True)


@dataclass(frozen=True)
class CheckedInventory:
    """An inventory file, what it declares, and the fleet that is built from it."""

    file: Path
    declaration: Declaration
    fleet: Fleet


def check_command() -> None:
    """Refuse a command that names one of our deploys and has problems; called by config.py.

    pyinfra runs config.py first, before it reads the inventory or contacts a host.
    """
    command = _command()
    if command is None:
        return
    _refuse(option_problems(command_options()))
    _refuse([*data_problems(command, parse_cli_arg), *folder_problems(command)])
    if command.deploys:
        _check(command.inventory, command)


def check_in_pyinfra(file: str) -> None:
    """Check the inventory file that pyinfra runs, if that was not done; see
    `roles.fleet.inventory.check`."""
    known = getattr(ctx_state.get(), _CHECKED, None)
    if is_reading(file) or (known is not None and known.file == Path(os.path.realpath(file))):
        return
    command = _command() or Command(file)
    if command.deploys:
        # Else `check_command` would have checked this file.
        raise RefusedError(_UNCONFIGURED.format(config=command_options().get("config_filename")))
    _refuse([*data_problems(command, parse_cli_arg), *folder_problems(command)])
    _check(file, command)


def set_checked(state: State, found: CheckedInventory) -> None:
    """Pass a checked inventory on to the deploy of the same pyinfra run."""
    setattr(state, _CHECKED, found)


def was_checked(state: State) -> bool:
    """Whether the inventory of this pyinfra run was checked and has no problems."""
    return hasattr(state, _CHECKED)


def checked(state: State) -> CheckedInventory:
    """The checked inventory of this pyinfra run; RefusedError where it was not checked."""
    found = getattr(state, _CHECKED, None)
    if found is None:
        raise RefusedError("the inventory is not checked; let its last line be check(__file__)")
    return found


def _check(file: str, command: Command) -> None:
    found = _checked(file, command)
    problems = list(host_problems(command, found.declaration))
    if command.needs_hardware and not problems:
        problems += target_problems(command, found.declaration, found.fleet, parse_cli_arg)
    problems += ssh_file_problems(_ssh_data(found.declaration, command))
    if command.needs_hardware and not unknown_hosts(found.fleet.hosts):
        accepted = {"accept_hardware=true", "accept_plan=true"} & set(map(str.lower, command.data))
        problem = None if accepted else saved_plan_problem(found.file, found.fleet.plans)
        problems += [problem] if problem else []
    _refuse(problems)
    state = ctx_state.get()
    if state is not None:
        set_checked(state, found)


def _checked(file: str, command: Command) -> CheckedInventory:
    try:
        declaration = read(file, command.group_data)
        # A damaged saved plan is refused before any host is contacted.
        saved_plan(Path(file))
        return CheckedInventory(
            inventory_file(file), declaration, build(declaration, hardware=command.needs_hardware)
        )
    except (DeclarationError, InventoryFileError) as error:
        raise RefusedError(str(error)) from None


def _ssh_data(declaration: Declaration, command: Command) -> dict[str, Mapping[str, Any]]:
    """The ssh data of the command line, and of each host what it does not override."""
    given = overrides(command, parse_cli_arg)
    hosts = {
        f"hosts[{name}].": {key: value for key, value in host.ssh.items() if key not in given}
        for name, host in declaration.hosts.items()
        if not name.startswith("@")
    }
    return {"--data ": given, **hosts}


def _command() -> Command | None:
    """The command of this pyinfra process; None where pyinfra is used as a library."""
    given = command_options()
    if "inventory" not in given or "operations" not in given:
        return None
    options = {
        name: tuple(given.get(name) or ()) for name in ("data", "limit", "exclude", "group_data")
    }
    ssh = {name: given[name] for name in SSH if given.get(name)}
    return Command(given["inventory"], tuple(given["operations"]), **options, ssh=ssh)


def command_options() -> Mapping[str, Any]:
    """pyinfra's command-line options, which only its main greenlet knows; empty for a library."""
    context = click.get_current_context(silent=True)
    return context.params if context else {}


def _refuse(problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        raise RefusedError("\n".join([*found, "Nothing was done."]))
