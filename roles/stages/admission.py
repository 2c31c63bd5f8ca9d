"""Decides whether a host may be changed; a host that may not is stopped, and others go on."""

from collections.abc import Sequence
from dataclasses import replace

from pyinfra import host

from roles.balancer import PART as BALANCER
from roles.balancer import BalancerSettings, balancer_of, balancers, own_ports
from roles.checks import failed
from roles.declaration import BALANCERS, GPU_HOSTS
from roles.driver import PART as DRIVER
from roles.engine import part as engines_part
from roles.fleet import Fleet, Host
from roles.hardware import Hardware, HardwareReport, bus_difference, difference, summary
from roles.host import Part
from roles.host.outcome import say, stop, warn
from roles.launch import GIVEN_PORTS, internal_ports
from roles.launch import PART as LAUNCH
from roles.preflight import (
    OTHER_DEPLOY,
    BalancerHost,
    HostNeeds,
    ServiceOnHost,
    engine_host,
    without_engine,
)
from roles.preflight import parts as preflight_parts
from roles.preflight.deploy import abort_reason, preflight
from roles.stages.answers import ask, ask_balancer, launch_state, watchdog_state
from roles.stages.difference import show_difference
from roles.stages.drained import show_drains
from roles.stages.messages import wants, warn_faults
from roles.stages.run import Run
from roles.tuning import PART as TUNING
from roles.tuning import with_planned_mig
from roles.watchdog import PART as WATCHDOG


def compare(run: Run) -> None:
    """Compare this host with the inventory, by its PCI bus where it has no driver yet.

    It is stopped where it differs. Its faults are printed.
    """
    declared = run.fleet.host(host.name)
    show_drains(run)
    report = _report(run)
    if report is None or declared.hardware is None or declared.retired:
        return
    if different := _different(declared, report):
        stop(different)
        return
    say(f"GPUs as in the inventory: {summary(declared.hardware.gpus)}")
    for name, quarantine in run.left_out(host.name).items():
        warn(f"{name} is left out: {quarantine}; deploys/quarantine.py lifts it")
    for name, reason in run.unjoined(host.name, launch_state(run, host.name)).items():
        warn(f"{name} is left out: {reason}")
    warn_faults(report.faults, declared.driver)


def admit_as_deployed(run: Run) -> bool:
    """Whether this host is as a deploy leaves it; otherwise it is stopped with the reason.

    It must have passwordless sudo, the inventory's hardware, and no fault that keeps it from
    serving.
    """
    report = _report(run)
    if report is None:
        return False
    declared = run.fleet.host(host.name)
    if reason := _sudo_problem(report) or _hardware_problem(declared, report):
        stop(reason)
        return False
    if declared.hardware is not None and not declared.retired:
        say(f"GPUs as in the inventory: {summary(declared.hardware.gpus)}")
        warn_faults(report.faults, declared.driver)
    run.observed(host.name, report)
    return True


def admit(run: Run, engine: bool = True) -> bool:
    """Whether this host passes preflight; otherwise it is stopped.

    All failed checks are printed at once. What the driver stage repairs stops no host. Without
    `engine` the run ends after the driver stage; otherwise the plan's changes are printed, once a
    run.
    """
    admitted = _admit(run, engine)
    if engine:
        show_difference(run)
    return admitted


def _admit(run: Run, engine: bool) -> bool:
    declared = run.fleet.host(host.name)
    needs = host_needs(run.fleet, declared)
    if not engine:
        needs = without_engine(needs)
    answered = ask(run, parts_for(run, needs))
    if answered is None:
        return False
    if BALANCERS in declared.roles:
        ask_balancer(run)
    _note_quarantines(run)
    report = with_planned_mig(answered.report, declared.tuning.mig)
    times = answered.asked_at, answered.answered_at
    verbose = wants("verbose", default=False)
    found = preflight(answered.answers, report, needs, times, run.report.record, verbose)
    if found is None:
        return False
    if any(check.name == OTHER_DEPLOY for check in failed(found)):
        run.busy.add(host.name)
    if reason := abort_reason(found):
        stop(reason)
        return False
    run.observed(host.name, report)
    return True


def _note_quarantines(run: Run) -> None:
    if found := watchdog_state(run, host.name):
        run.quarantines[host.name] = found.quarantines


def parts_for(run: Run, needs: HostNeeds) -> tuple[Part, ...]:
    """The parts of the question to this host that the run needs, beside its hardware."""
    parts, roles = preflight_parts(needs), run.fleet.host(host.name).roles
    if BALANCERS in roles:
        parts = (*parts, BALANCER)
    if GPU_HOSTS not in roles:
        return parts
    packages = needs.engine.packages if needs.engine else ()
    return (*parts, DRIVER, TUNING, LAUNCH, WATCHDOG, engines_part(packages))


def _report(run: Run) -> HardwareReport | None:
    """This host's report, with the MIG slices that are still to be made; None where it gave no
    answer."""
    answered = ask(run, (WATCHDOG,) if GPU_HOSTS in run.fleet.host(host.name).roles else ())
    if answered is None:
        return None
    _note_quarantines(run)
    return with_planned_mig(answered.report, run.fleet.host(host.name).tuning.mig)


def _different(declared: Host, report: HardwareReport) -> str | None:
    bare = report.hardware is None and declared.driver.install != "never"
    return (bus_difference if bare else difference)(_expected(declared), report)


def _hardware_problem(declared: Host, report: HardwareReport) -> str:
    """Why a host cannot serve as it is, or ""; always "" for a retired one."""
    if declared.hardware is None or declared.retired:
        return ""
    return difference(_expected(declared), report) or "; ".join(map(str, report.blocking_faults))


def _expected(declared: Host) -> Hardware:
    """The hardware in the inventory; without the driver's version where deploys may change it."""
    assert declared.hardware is not None
    if declared.driver.install == "never":
        return declared.hardware
    return replace(declared.hardware, driver_version=None)


def _sudo_problem(report: HardwareReport) -> str:
    """Why nothing may be changed on a host, or ""."""
    if report.passwordless_sudo:
        return ""
    if report.root:
        return "sudo is not installed; install it, for instance: apt-get install sudo"
    return "no passwordless sudo for this user; add a NOPASSWD rule for it to /etc/sudoers.d"


def host_needs(fleet: Fleet, declared: Host) -> HostNeeds:
    """What a deploy needs of a host for its roles; a retired host needs no GPUs."""
    runs_engines = GPU_HOSTS in declared.roles and not declared.retired
    balancer = fleet.settings.balancer if BALANCERS in declared.roles else None
    served = [
        ServiceOnHost(service, build, replicas)
        for service, build, replicas in fleet.serving(declared.name)
    ]
    return HostNeeds(
        expected=_expected(declared) if declared.hardware and runs_engines else None,
        driver=declared.driver if runs_engines else None,
        engine=engine_host(
            fleet.engines_on(declared.name),
            served,
            _internal_ports(fleet, served),
            shm_gib=declared.tuning.dev_shm_gib,
            given_ports=_given_ports(fleet),
        )
        if runs_engines
        else None,
        balancer=_balancer_host(fleet, balancer) if balancer is not None else None,
    )


def _balancer_host(fleet: Fleet, settings: BalancerSettings) -> BalancerHost:
    """What a balancer of all services needs of its host."""
    own = own_ports([service.route for service in fleet.settings.services])
    ports = {settings.port: "balancer.port", **dict.fromkeys(own, "services[].route.port")}
    balancer = balancer_of(settings)
    return BalancerHost(
        ports,
        tuple(balancer.packages),
        balancer.kind,
        {one.kind: one.site for one in balancers()},
        balancer.selinux_boolean,
    )


def _given_ports(fleet: Fleet) -> tuple[int, int] | None:
    """The first and the last port of those that the kernel gives and the firewall closes; None
    without a firewall."""
    first, _, last = GIVEN_PORTS.partition("-")
    return (int(first), int(last)) if fleet.settings.launch.firewall else None


def _internal_ports(fleet: Fleet, served: Sequence[ServiceOnHost]) -> tuple[int, int]:
    """The first and the last port that the processes of a host's replicas use among themselves."""
    gpus = [gpu for one in served for replica in one.replicas for gpu in replica.gpus]
    last = internal_ports(fleet.settings.launch, [max(gpus, default=0)])[1]
    return fleet.settings.launch.internal_ports_from, last
