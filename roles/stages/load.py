"""What every deploy begins with: the checked fleet, and its plan in print."""

import click
from gevent.lock import RLock
from pyinfra import host
from pyinfra.api import State
from pyinfra.api.exceptions import PyinfraError

from roles.declaration.problems import DeclarationError
from roles.declaration.recordings import write_whole
from roles.fleet import inventory
from roles.fleet.fleet import Fleet, build
from roles.plan import plan_differences, saved
from roles.stages.discovery import accept_hardware
from roles.stages.messages import wants
from roles.topology import explain

_fleets: dict[State, Fleet] = {}
# pyinfra runs a deploy file for many hosts side by side.
_planning = RLock()


def announced(several: bool = False) -> Fleet:
    """The fleet of this run; its plan is printed once, before anything is done.

    `several`: the deploy can do with more than one service.
    """
    with _planning:
        fleet = _fleets.get(host.state)
        if fleet is None:
            if wants("accept_hardware", default=False):
                accept_hardware()
            fleet = rebuilt()
            for plan in fleet.plans:
                click.echo(f"\n{explain(plan)}")
            if len(fleet.plans) > 1 and not several:
                raise PyinfraError(
                    "services: several are planned, but this version deploys one; leave one in "
                    "this inventory"
                )
            _hold_to_saved_plan(fleet)
            _fleets[host.state] = fleet
    return fleet


def rebuilt() -> Fleet:
    """The fleet as its inventory and its recording are now; PyinfraError where they are wrong."""
    try:
        return build(inventory.declaration(inventory.checked_file, host.state.inventory))
    except DeclarationError as error:
        raise PyinfraError(str(error)) from None


def _hold_to_saved_plan(fleet: Fleet) -> None:
    """Stop where the saved plan is another, or save this one if it is to be accepted."""
    file = inventory.saved_plan_of(inventory.checked_file)
    if not file.is_file():
        return
    try:
        told = plan_differences(file.read_text(encoding="utf-8"), fleet.plans)
    except ValueError as error:
        raise PyinfraError(f"{file}: {error}") from None
    if told and not wants("accept_plan", default=False):
        raise PyinfraError(
            f"the plan is not the saved one ({file}): {'; '.join(told)}. Review it and save it "
            "with python -m roles.topology fleet INVENTORY --save, or deploy with "
            "--data accept_plan=true"
        )
    if told:
        write_whole(file, saved(fleet.plans))
        click.echo(f"the plan is accepted and saved in {file}")
