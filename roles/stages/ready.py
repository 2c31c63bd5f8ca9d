"""Whether a host's GPUs are ready once its driver stage is over, asked when the run executes."""

from collections.abc import Callable
from dataclasses import replace

from pyinfra import host, logger
from pyinfra.api import operation

from roles.fleet.fleet import Host
from roles.hardware import HostReport, cuda_fault, difference, summary
from roles.hardware.facts import CudaStart, observe
from roles.host.outcome import failing


@operation()
def ready(declared: Host, changed: Callable[[], bool], on_ready: Callable[[HostReport], str]):
    """
    Compare a host's GPUs with the inventory once more, after its driver; changes nothing.

    + declared: the host as the inventory has it
    + changed: whether anything was done since the host was last asked; where not, it is not asked
    + on_ready: is told what the host reports, where all is well; why the run cannot go on, or ""
    """
    if not host.state.is_executing or not changed():
        host.noop("the GPUs are as before" if host.state.is_executing else "asked when executed")
        return
    report = observe(host)
    if report is None:
        return
    if why := not_ready(declared, report) or _cuda(declared, report):
        yield failing(f"the GPUs are not ready: {why}")
        return
    logger.info(f"{host.print_prefix}GPUs are ready: {in_words(report)}")
    if why := on_ready(report):
        yield failing(why)
        return
    host.noop("the GPUs are ready")


def _cuda(declared: Host, report: HostReport) -> str:
    """Why CUDA does not start on a host whose GPUs look well, or ""."""
    if declared.engine.device != "cuda":
        return ""
    gpus = report.hardware.gpus if report.hardware else ()
    count = None if any(gpu.mig_profile for gpu in gpus) else len(gpus)
    fault = cuda_fault(host.get_fact(CudaStart), count)
    return str(fault) if fault else ""


def not_ready(declared: Host, report: HostReport) -> str:
    """Why nothing can be served on a host's GPUs, or ""; a driver of ours may be a new one."""
    assert declared.hardware is not None
    expected = replace(declared.hardware, driver_version=None)
    return difference(expected, report) or "; ".join(map(str, report.obstacles))


def in_words(report: HostReport) -> str:
    """A host's GPUs and their driver, for a person."""
    assert report.hardware is not None
    kind = "" if report.system.driver_open is None else " (proprietary modules)"
    kind = " (open modules)" if report.system.driver_open else kind
    driver = report.hardware.driver_version or report.system.driver_loaded
    told = f"{summary(report.hardware.gpus)}, driver {driver or '?'}{kind}"
    if report.system.fabric_manager == "active":
        told += f", fabric manager {report.system.fabric_manager_version or '?'}"
    return told
