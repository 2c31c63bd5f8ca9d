"""The inventory of a pyinfra run: checked as its file is read, and handed on to the deploy."""

from dataclasses import dataclass
from pathlib import Path

from pyinfra.api import State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_state

from roles.declaration import Declaration, DeclarationError
from roles.declaration.inventory import is_reading, read
from roles.fleet.build import build
from roles.fleet.fleet import Fleet

# The name under which pyinfra's state holds what was checked, for the deploy that follows.
_CHECKED = "pyinfra_llm_checked"


class InventoryError(PyinfraError):
    """A DeclarationError as pyinfra shows it: the message alone, exit status 1."""


@dataclass(frozen=True)
class CheckedInventory:
    """An inventory file with what it declares and the fleet that follows."""

    file: Path
    declaration: Declaration
    fleet: Fleet


def check_in_pyinfra(file: str) -> None:
    """Check the inventory file that pyinfra runs; see `roles.fleet.inventory.check`."""
    if is_reading(file):
        return
    try:
        declaration = read(file)
        fleet = build(declaration, hardware=False)
    except DeclarationError as error:
        raise InventoryError(str(error)) from None
    state = ctx_state.get()
    if state is not None:
        keep_checked(state, CheckedInventory(Path(file).resolve(), declaration, fleet))


def keep_checked(state: State, found: CheckedInventory) -> None:
    """Hand a checked inventory on to the deploy of the same pyinfra run."""
    setattr(state, _CHECKED, found)


def checked(state: State) -> CheckedInventory:
    """What was checked of the inventory of this pyinfra run; PyinfraError where nothing was."""
    found = getattr(state, _CHECKED, None)
    if found is None:
        raise PyinfraError("the inventory is not checked; let its last line be check(__file__)")
    return found
