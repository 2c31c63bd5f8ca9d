"""Records what hosts have in inventories/hardware/: their GPUs, their driver, their verdicts."""

from collections.abc import Mapping

import click
from gevent.pool import Pool
from pyinfra import host
from pyinfra.api import Host as PyinfraHost
from pyinfra.context import ctx_host

from roles.declaration.recordings import record
from roles.driver import MENDED
from roles.fleet import inventory
from roles.fleet.fleet import GPU_HOSTS
from roles.hardware import (
    Hardware,
    HostReport,
    LinkVerdict,
    difference,
    entry,
    findings,
    keeping_verdicts,
    recorded_hardware,
    summary,
    with_verdicts,
)
from roles.hardware.facts import observe
from roles.stages.messages import say, stop, wants, warn

# Hosts are asked side by side.
_ASKED_AT_ONCE = 20


def discovered() -> None:
    """Record this host's hardware in inventories/hardware/, if it has GPUs; nothing is changed."""
    if GPU_HOSTS not in host.groups:
        return
    report = observe(host)
    if report is None or host in host.state.failed_hosts:
        return
    found = report.hardware or report.presumed
    if found is None or not found.gpus:
        stop("; ".join(map(str, report.faults)) or "no GPU was found")
        return
    lost = [fault for fault in report.faults if fault.absent]
    if lost and not wants("accept_hardware", default=False):
        stop(
            f"{'; '.join(map(str, lost))}. Not recorded: mend it, or record it as it is with "
            "--data accept_hardware=true"
        )
        return
    _tell_changes(report)
    identifiers = report.identifiers if wants("identifiers", default=False) else {}
    found = keeping_verdicts(found, _known(host.name))
    record(inventory.recording_of(inventory.checked_file), {host.name: entry(found, identifiers)})
    say(f"recorded {summary(found.gpus)}, driver {found.driver_version or 'not installed'}")
    for fault in report.obstacles:
        mended = "deploys/drivers.py sees to it" if fault.kind in MENDED else fault.remedy
        say(f"{click.style('not ready to serve', 'red')}: {fault.problem}: {mended}")
    warn(fault for fault in report.faults if fault.severity == "warning")


def record_verdicts(name: str, hardware: Hardware, verdicts: tuple[LinkVerdict, ...]) -> None:
    """Record verdicts of a host's interconnect, beside what is recorded of the host."""
    file = inventory.checked_file
    known = inventory.recorded(file).get(name)
    record(inventory.recording_of(file), {name: with_verdicts(known, hardware, verdicts)})


def record_driver(name: str, report: HostReport) -> bool:
    """Record a host's new driver where its hardware is recorded; whether anything was.

    Raises ValueError and OSError where the file cannot be read or written.
    """
    known, found = _known(name), report.hardware
    if known is None or found is None or known.driver_version == found.driver_version:
        return False
    # The entry of a host whose GPUs are declared holds its verdicts, and pins no driver.
    if known.driver_version is None and known.interconnect:
        return False
    found = keeping_verdicts(found, known)
    file = inventory.recording_of(inventory.checked_file)
    record(file, {name: entry(found, _identifiers(name, report))})
    return True


def _identifiers(name: str, report: HostReport) -> Mapping[int, Mapping[str, str]]:
    """UUIDs and serial numbers, where those of the host are recorded already."""
    raw = inventory.recorded(inventory.checked_file).get(name) or {}
    gpus = raw.get("gpus") if isinstance(raw, Mapping) else None
    has_some = any("uuid" in gpu or "serial" in gpu for gpu in gpus or () if gpu)
    return report.identifiers if has_some else {}


def _known(name: str) -> Hardware | None:
    """What is recorded of a host; None where that is nothing, or cannot be read."""
    known = inventory.recorded(inventory.checked_file).get(name)
    try:
        return recorded_hardware(known) if known is not None else None
    except ValueError:
        return None


def accept_hardware() -> None:
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
        known = recorded_hardware(entries[other.name])
        if difference(known, report):
            found = keeping_verdicts(report.hardware, known)
            changed[other.name] = entry(found, _identifiers(other.name, report))
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
            say(f"{click.style('changed', 'yellow')}: {finding}")
