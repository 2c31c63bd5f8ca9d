"""Whether a host may be changed: it is looked at first, and stopped alone for what it lacks."""

from dataclasses import replace
from pathlib import Path

from pyinfra import host

from roles.fleet.fleet import BALANCERS, GPU_HOSTS, Fleet, Host
from roles.hardware import Hardware, HostReport, bus_difference, difference, summary
from roles.hardware.facts import observe
from roles.preflight import BalancerHost, HostNeeds, Served, engine_host, without_engine
from roles.preflight.deploy import preflight, stopped_by
from roles.stages.messages import say, stop, wants, warn
from roles.tuning import foreseen


def compared(fleet: Fleet) -> None:
    """Compare this host with the inventory, by its PCI bus where it has no driver yet; it is
    stopped where it differs. Faults are told."""
    declared = fleet.host(host.name)
    report = _report(declared)
    if report is None or declared.hardware is None:
        return
    if different := _different(declared, report):
        stop(different)
        return
    say(f"GPUs as in the inventory: {summary(declared.hardware.gpus)}")
    warn(report.faults)


def admitted(fleet: Fleet) -> Host | None:
    """This host where it is as a deploy leaves it; otherwise it is stopped alone, with the reason.

    It must have passwordless sudo, the hardware that the inventory says, and no fault with which
    it cannot serve.
    """
    declared = fleet.host(host.name)
    report = _report(declared)
    if report is None:
        return None
    if why := _locked(report):
        return stop(why)
    if declared.hardware is None:
        return declared
    if different := difference(_expected(declared), report):
        return stop(different)
    if report.obstacles:
        return stop("; ".join(map(str, report.obstacles)))
    say(f"GPUs as in the inventory: {summary(declared.hardware.gpus)}")
    warn(report.faults)
    return _seen(declared, report)


def _report(declared: Host) -> HostReport | None:
    """What this host reports, with the slices that are still to be made; None where it cannot."""
    report = observe(host)
    if report is None or host in host.state.failed_hosts:
        return None
    return foreseen(report, declared.tuning.mig)


def _different(declared: Host, report: HostReport) -> str | None:
    bare = report.hardware is None and declared.driver.install != "never"
    return (bus_difference if bare else difference)(_expected(declared), report)


def _expected(declared: Host) -> Hardware:
    """The hardware that the inventory says. Where deploys see to the driver, any that serves will
    do: a new one is recorded."""
    assert declared.hardware is not None
    if declared.driver.install == "never":
        return declared.hardware
    return replace(declared.hardware, driver_version=None)


def passed(fleet: Fleet, engine: bool = True) -> Host | None:
    """This host where nothing stands against a deploy; otherwise it is stopped alone.

    All that it lacks is told at once. What the driver stage mends stops nobody. Without `engine`
    the run ends with the driver.
    """
    declared = fleet.host(host.name)
    report = _report(declared)
    if report is None:
        return None
    needs = host_needs(fleet, declared)
    folder = Path(host.state.cwd or ".") / fleet.settings.validation.report_dir
    found = preflight(
        report, needs if engine else without_engine(needs), folder, wants("verbose", default=False)
    )
    if found is None:
        return None
    if why := stopped_by(found):
        return stop(why)
    return _seen(declared, report)


def _seen(declared: Host, report: HostReport) -> Host:
    driver = report.hardware.driver_version if report.hardware else None
    unready = declared.hardware is not None and bool(report.obstacles)
    return replace(declared, devices=report.devices, driver_version=driver, unready=unready)


def _locked(report: HostReport) -> str:
    """Why nothing may be changed on a host, or ""."""
    if report.passwordless_sudo:
        return ""
    if report.root:
        return "sudo is not installed; install it, for instance: apt-get install sudo"
    return "no passwordless sudo for this user; add a NOPASSWD rule for it to /etc/sudoers.d"


def host_needs(fleet: Fleet, declared: Host) -> HostNeeds:
    """What a deploy needs of a host for its roles."""
    own = {plan.service: plan.on(declared.name) for plan in fleet.plans}
    served = [
        Served(service, plan.replicas)
        for service in fleet.settings.services
        if (plan := own.get(service.name)) is not None
    ]
    runs_engines, balances = GPU_HOSTS in declared.roles, BALANCERS in declared.roles
    return HostNeeds(
        expected=_expected(declared) if declared.hardware else None,
        driver=declared.driver if runs_engines else None,
        engine=engine_host(
            declared.engine,
            served,
            fleet.settings.launch.internal_ports_from,
            shm_gib=declared.tuning.dev_shm_gib,
        )
        if runs_engines
        else None,
        balancer=BalancerHost(fleet.settings.balancer.port) if balances else None,
    )
