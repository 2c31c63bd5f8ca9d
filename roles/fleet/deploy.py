"""What every deploy begins with: the checked fleet, its plan in print, and hosts as declared."""

from dataclasses import replace

import click
from gevent.lock import RLock
from gevent.pool import Pool
from pyinfra import host
from pyinfra.api import Host as PyinfraHost
from pyinfra.api import State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_host

from roles.fleet import inventory
from roles.fleet.discovery import record, write_whole
from roles.fleet.fleet import GPU_HOSTS, Fleet, Host, build
from roles.fleet.problems import DeclarationError
from roles.hardware import HostReport, difference, entry, findings, recorded_hardware, summary
from roles.hardware.facts import observe
from roles.topology import explain, plan_differences, saved

# Hosts are asked side by side.
_ASKED_AT_ONCE = 20

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
                _accept_hardware()
            fleet = _build()
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


def wants(name: str, default: bool) -> bool:
    """What `--data NAME=true` or `=false` says; PyinfraError for anything else."""
    said = host.data.get(name, default)
    if not isinstance(said, bool):
        raise PyinfraError(f"--data {name}={said}: say true or false")
    return said


def admitted(fleet: Fleet) -> Host | None:
    """This host if it may be changed; otherwise it is stopped alone, with the reason in print.

    It must have passwordless sudo, the hardware that the inventory says, and no fault with which
    it cannot serve.
    """
    declared = fleet.host(host.name)
    report = observe(host)
    if report is None or host in host.state.failed_hosts:
        return None
    if not report.passwordless_sudo:
        if report.root:
            return _stop("sudo is not installed; install it, for instance: apt-get install sudo")
        return _stop(
            "no passwordless sudo for this user; add a NOPASSWD rule for it to /etc/sudoers.d"
        )
    if declared.hardware is None:
        return declared
    if different := difference(declared.hardware, report):
        return _stop(different)
    if report.obstacles:
        return _stop("; ".join(map(str, report.obstacles)))
    _say(f"GPUs as in the inventory: {summary(declared.hardware.gpus)}")
    _warn(report)
    return replace(declared, devices=report.devices)


def discovered() -> None:
    """Record this host's hardware in inventories/hardware/, if it has GPUs; nothing is changed."""
    if GPU_HOSTS not in host.groups:
        return
    report = observe(host)
    if report is None or host in host.state.failed_hosts:
        return
    found = report.hardware or report.presumed
    if found is None or not found.gpus:
        _stop("; ".join(map(str, report.faults)) or "no GPU was found")
        return
    lost = [fault for fault in report.faults if fault.absent]
    if lost and not wants("accept_hardware", default=False):
        _stop(
            f"{'; '.join(map(str, lost))}. Not recorded: mend it, or record it as it is with "
            "--data accept_hardware=true"
        )
        return
    _tell_changes(report)
    identifiers = report.identifiers if wants("identifiers", default=False) else {}
    record(inventory.recording_of(inventory.checked_file), {host.name: entry(found, identifiers)})
    _say(f"recorded {summary(found.gpus)}, driver {found.driver_version or 'not installed'}")
    for fault in report.obstacles:
        _say(f"{click.style('to be mended before a deploy', 'red')}: {fault}")
    _warn(report)


def _build() -> Fleet:
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


def _accept_hardware() -> None:
    """Record anew what differs on recorded hosts, before anything is planned."""
    entries = inventory.recorded(inventory.checked_file)
    asked = [
        other
        for other in host.state.active_hosts
        if GPU_HOSTS in other.groups and other.name in entries
    ]
    changed = {}
    for other, report in zip(asked, Pool(_ASKED_AT_ONCE).map(_observed, asked), strict=True):
        if report is None or report.hardware is None:
            continue
        if difference(recorded_hardware(entries[other.name]), report):
            changed[other.name] = entry(report.hardware)
            told = f"{other.name} is accepted as {summary(report.hardware.gpus)}"
            click.echo(f"{other.print_prefix}{told}")
    if changed:
        record(inventory.recording_of(inventory.checked_file), changed)


def _observed(other: PyinfraHost) -> HostReport | None:
    with ctx_host.use(other):
        return observe(other)


def _tell_changes(report: HostReport) -> None:
    known = inventory.recorded(inventory.checked_file).get(host.name)
    if known is not None and report.hardware:
        for finding in findings(recorded_hardware(known), report.hardware):
            _say(f"{click.style('changed', 'yellow')}: {finding}")


def _say(text: str) -> None:
    click.echo(f"{host.print_prefix}{text}")


def _warn(report: HostReport) -> None:
    for fault in report.faults:
        if fault.severity == "warning":
            _say(f"{click.style('warning', 'yellow')}: {fault}")


def _stop(why: str) -> None:
    click.echo(
        f"{host.print_prefix}{click.style('stopped, nothing was changed here', 'red')}: {why}",
        err=True,
    )
    host.state.fail_hosts({host})
