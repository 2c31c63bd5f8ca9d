"""What every deploy begins with: the checked fleet, its plan in print, and hosts as declared."""

import click
from pyinfra import host
from pyinfra.api import State
from pyinfra.api.exceptions import PyinfraError

from roles.fleet import inventory
from roles.fleet.fleet import Fleet, Host, build
from roles.fleet.problems import DeclarationError
from roles.hardware import difference, summary
from roles.hardware.facts import observe
from roles.topology import explain

_fleets: dict[State, Fleet] = {}


def announced() -> Fleet:
    """The fleet of this run; its plan is printed once, before anything is done."""
    fleet = _fleets.get(host.state)
    if fleet is None:
        try:
            fleet = build(inventory.declaration(inventory.checked_name, host.state.inventory))
        except DeclarationError as error:
            raise PyinfraError(str(error)) from None
        _fleets[host.state] = fleet
        click.echo(f"\n{explain(fleet.plan)}")
    return fleet


def admitted(fleet: Fleet) -> Host | None:
    """This host if it may be changed; otherwise it is stopped alone, with the reason in print.

    It must have passwordless sudo, and as many and the same GPUs as the inventory says.
    """
    declared = fleet.host(host.name)
    report = observe(host)
    if host in host.state.failed_hosts:
        return None
    if not report.passwordless_sudo:
        if report.root:
            return _stop("sudo is not installed; install it, for instance: apt-get install sudo")
        return _stop(
            "no passwordless sudo for this user; add a NOPASSWD rule for it to /etc/sudoers.d"
        )
    if declared.hardware:
        if different := difference(declared.hardware, report):
            return _stop(different)
        click.echo(f"{host.print_prefix}GPUs as declared: {summary(declared.hardware.gpus)}")
    return declared


def _stop(why: str) -> None:
    click.echo(
        f"{host.print_prefix}{click.style('stopped, nothing was changed here', 'red')}: {why}",
        err=True,
    )
    host.state.fail_hosts({host})
