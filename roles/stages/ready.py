"""Checks whether a host's GPUs are ready after the driver stage, when the run executes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from pyinfra import host, logger
from pyinfra.api import operation

from roles.checks import Check, failed, of_host
from roles.fleet import Host
from roles.hardware import Fault, HardwareReport, cuda_fault, difference, fault_check, summary
from roles.hardware.facts import CudaStart, observe
from roles.host.outcome import failing


@operation()
def ready(
    declared: Host,
    cuda: bool,
    changed: Callable[[], bool],
    on_ready: Callable[[HardwareReport], str],
    record: Callable[[Sequence[Check]], None],
):
    """
    Compare a host's GPUs with the inventory again, after its driver stage; changes nothing.

    + declared: the host in the inventory
    + cuda: whether its engines use CUDA
    + changed: whether anything was done since the host last answered; if not, it is not asked
    + on_ready: takes the host's report if all is well; returns why the run cannot go on, or ""
    + record: takes all checks
    """
    if not host.state.is_executing or not changed():
        host.noop("the GPUs are as before" if host.state.is_executing else "asked when executed")
        return
    report = observe(host)
    if report is None:
        return
    checks = readiness(declared, report)
    if not failed(checks) and cuda and (fault := _cuda_fault(report)):
        checks = [fault_check(fault)]
    record(of_host(host.name, checks))
    if bad := failed(checks):
        yield failing(f"the GPUs are not ready: {'; '.join(map(_with_remedy, bad))}")
        return
    logger.info(f"{host.print_prefix}GPUs are ready: {in_words(report)}")
    if reason := on_ready(report):
        yield failing(reason)
        return
    host.noop("the GPUs are ready")


def _cuda_fault(report: HardwareReport) -> Fault | None:
    """Why CUDA does not start on a host whose GPUs have no other fault."""
    gpus = report.hardware.gpus if report.hardware else ()
    count = None if any(gpu.mig_profile for gpu in gpus) else len(gpus)
    return cuda_fault(host.get_fact(CudaStart), count)


def readiness(declared: Host, report: HardwareReport) -> list[Check]:
    """The checks of whether a host's GPUs can serve; its driver may be newer than recorded."""
    assert declared.hardware is not None
    expected = replace(declared.hardware, driver_version=None)
    if different := difference(expected, report):
        return [Check("gpus-ready", "GPUs", "fail", different)]
    if report.blocking_faults:
        return [fault_check(fault) for fault in report.blocking_faults]
    return [Check("gpus-ready", "GPUs", "pass", in_words(report))]


def _with_remedy(check: Check) -> str:
    return f"{check.evidence}: {check.remedy}" if check.remedy else check.evidence


def in_words(report: HardwareReport) -> str:
    """A host's GPUs and their driver in words."""
    assert report.hardware is not None
    kind = "" if report.system.driver_open is None else " (proprietary modules)"
    kind = " (open modules)" if report.system.driver_open else kind
    driver = report.hardware.driver_version or report.system.driver_loaded
    text = f"{summary(report.hardware.gpus)}, driver {driver or '?'}{kind}"
    if report.system.fabric_manager == "active":
        text += f", fabric manager {report.system.fabric_manager_version or '?'}"
    return text
