"""The stage that records hosts' hardware in inventories/hardware/: GPUs, driver and verdicts."""

from collections.abc import Mapping
from typing import Any

import click
from gevent.pool import Pool
from pyinfra import host
from pyinfra.api import Host as PyinfraHost
from pyinfra.context import ctx_host

from roles.declaration import GPU_HOSTS, check_entry, record, recorded, recording_of
from roles.driver import REMEDIATED
from roles.fleet import hardware_from
from roles.hardware import (
    Hardware,
    HardwareReport,
    LinkVerdict,
    difference,
    entry,
    findings,
    keep_verdicts,
    recorded_hardware,
    summary,
    with_verdicts,
)
from roles.hardware.facts import observe
from roles.host.outcome import say, stop
from roles.stages.answers import ask
from roles.stages.messages import wants, warn_faults
from roles.stages.run import Run

# How many hosts are asked in parallel.
_ASKED_AT_ONCE = 20


def discover(run: Run) -> None:
    """Record this host's hardware in inventories/hardware/, if it has GPUs; the host is not
    changed."""
    if GPU_HOSTS not in host.groups:
        return
    answered = ask(run, ())
    if answered is None:
        return
    report = answered.report
    found = report.hardware or report.presumed
    if found is None or not found.gpus:
        stop("; ".join(map(str, report.faults)) or "no GPU was found")
        return
    absent = [fault for fault in report.faults if fault.absent]
    if absent and not wants("accept_hardware", default=False):
        stop(
            f"{'; '.join(map(str, absent))}. Not recorded: fix it, or record it as it is with "
            "--data accept_hardware=true"
        )
        return
    known = recorded(run.file).get(host.name)
    _show_changes(known, report)
    identifiers = report.identifiers if wants("identifiers", default=False) else {}
    found = keep_verdicts(found, _readable(known))
    try:
        record(recording_of(run.file), {host.name: entry(found, identifiers)})
    except ValueError as error:
        stop(str(error))
        return
    say(f"recorded {summary(found.gpus)}, driver {found.driver_version or 'not installed'}")
    for fault in report.blocking_faults:
        remedy = "deploys/drivers.py sees to it" if fault.kind in REMEDIATED else fault.remedy
        say(f"{click.style('not ready to serve', 'red')}: {fault.problem}: {remedy}")
    driver = run.fleet.host(host.name).driver
    warn_faults((one for one in report.faults if one.severity == "warning"), driver)


def record_verdicts(run: Run, name: str, verdicts: tuple[LinkVerdict, ...]) -> None:
    """Record verdicts of a host's interconnect in its entry."""
    hardware = run.fleet.host(name).hardware
    assert hardware is not None
    known = recorded(run.file).get(name)
    record(recording_of(run.file), {name: with_verdicts(known, hardware, verdicts)})


def record_driver(run: Run, name: str, report: HardwareReport) -> Hardware | None:
    """Record a host's new driver, if its hardware is recorded.

    Returns the host's hardware with the new entry, None where no entry changed. Raises ValueError
    and OSError where the file cannot be read or written.
    """
    raw, found = recorded(run.file).get(name), report.hardware
    known = _readable(raw)
    if known is None or found is None or known.driver_version == found.driver_version:
        return None
    # The entry of a host with declared GPUs holds only verdicts, and pins no driver.
    if known.driver_version is None and known.interconnect:
        return None
    new = entry(keep_verdicts(found, known), _identifiers(raw, report))
    record(recording_of(run.file), {name: new})
    return hardware_from(run.declaration, run.fleet.host(name), new)


def _identifiers(raw: Any, report: HardwareReport) -> Mapping[int, Mapping[str, str]]:
    """UUIDs and serial numbers, if the host's entry `raw` has some already."""
    gpus = raw.get("gpus") if isinstance(raw, Mapping) else None
    has_some = any("uuid" in gpu or "serial" in gpu for gpu in gpus or () if gpu)
    return report.identifiers if has_some else {}


def _readable(raw: Any) -> Hardware | None:
    """The hardware of an entry; None where there is no entry, or it cannot be read."""
    try:
        return recorded_hardware(raw) if raw is not None else None
    except ValueError:
        return None


def accept_hardware(run: Run) -> None:
    """Record the hardware of recorded hosts that has changed, before anything is planned."""
    entries = recorded(run.file)
    wanted = [
        other
        for other in run.state.active_hosts
        if GPU_HOSTS in other.groups and other.name in entries
    ]
    changed = {}
    reports = Pool(_ASKED_AT_ONCE).map(lambda other: _observed(run, other), wanted)
    for other, report in zip(wanted, reports, strict=True):
        if report is None or report.hardware is None:
            continue
        known = recorded_hardware(entries[other.name])
        if difference(known, report):
            found = keep_verdicts(report.hardware, known)
            identifiers = _identifiers(entries[other.name], report)
            new = entry(found, identifiers)
            try:
                check_entry(other.name, new)
            except ValueError as error:
                with ctx_host.use(other):
                    stop(str(error))
                continue
            changed[other.name] = new
            gpus = summary(report.hardware.gpus)
            click.echo(f"{other.print_prefix}{other.name} is accepted as {gpus}", err=True)
    if changed:
        record(recording_of(run.file), changed)


def _observed(run: Run, other: PyinfraHost) -> HardwareReport | None:
    with ctx_host.use(other):
        return observe(other)


def _show_changes(known: Any, report: HardwareReport) -> None:
    if known is not None and report.hardware:
        for finding in findings(recorded_hardware(known), report.hardware):
            say(f"{click.style('changed', 'yellow')}: {finding}")
