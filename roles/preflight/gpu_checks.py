"""Checks of GPUs: that they are as planned, suit the engine, are healthy, and that their driver
suits it too. Pure."""

from collections.abc import Iterator
from dataclasses import replace

from roles.checks import Check
from roles.driver import REMEDIATED, REMEDIATED_BY_ANOTHER_DRIVER, REMEDIATED_BY_REBOOT, Choice
from roles.engine import EngineNeeds
from roles.hardware import Fault, Gpu, bus_difference, difference, fault_check, find_card, summary
from roles.preflight.context import DRIVER_INSTALLATION, CheckContext, ok, skipped, stop, warning
from roles.preflight.driver_need import (
    chosen_driver,
    has_gpu,
    install_reason,
    installs_driver,
    loaded_version,
    required_branch,
)

# An idle GPU uses less memory than this.
_IDLE_MIB = 1024


def gpu_checks(context: CheckContext) -> Iterator[Check]:
    """Every check of GPUs and their driver."""
    if context.needs.expected is None:
        return
    yield planned_gpus(context)
    yield driver(context)
    yield from secure_boot(context)
    yield from capability(context)
    yield from faults(context)
    yield memory_in_use(context)


def _gpus(context: CheckContext) -> tuple[Gpu, ...]:
    """The GPUs that the driver or the PCI bus reports; else those of the inventory."""
    found = context.report.hardware or context.report.presumed or context.needs.expected
    return found.gpus if found else ()


def planned_gpus(context: CheckContext) -> Check:
    """Whether the host has the inventory's GPUs; PCI ids are compared where no driver answers."""
    expected, report = context.needs.expected, context.report
    assert expected
    if report.hardware is not None:
        different = difference(expected, report)
        if different:
            return stop("gpus", different, "")
        return ok("gpus", summary(report.hardware.gpus))
    if report.presumed is None and not has_gpu(report):
        return stop(
            "gpus",
            f"{summary(expected.gpus)} in the inventory; the host has no GPU on its PCI bus",
            "check that the host has its GPUs (a virtual machine: that they are passed through)",
        )
    if different := bus_difference(expected, report):
        return stop("gpus", different, "")
    return ok("gpus", f"{summary(expected.gpus)}, by the PCI bus")


def driver(context: CheckContext) -> Check:
    """Whether the driver suits the engine, or the run will install one that does."""
    settings, wanted = context.needs.driver, required_branch(context.needs)
    why, loaded = install_reason(context.report, context.needs), loaded_version(context.report)
    if why is None:
        if loaded:
            return ok("driver", f"{loaded}{f', {wanted} is needed' if wanted else ''}")
        return skipped("driver", "none is needed")
    if settings is None or settings.install == "never":
        return stop(
            "driver",
            f"{why}, and driver.install is never",
            "install it on the host, or set driver.install: when-needed",
        )
    try:
        chosen = chosen_driver(context.report, context.needs, context.report.system.machine)
    except ValueError as error:
        return stop("driver", f"{why}, and no driver suits", _one_line(error))
    if loaded and settings.reboot == "never":
        return warning(
            "driver",
            f"{why}: {_driver_name(chosen)} will be installed, and works after a reboot",
            "allow it with driver.reboot: when-needed, or reboot the host after the run",
        )
    return ok(DRIVER_INSTALLATION, f"{why}: {_driver_name(chosen)} will be installed")


def _driver_name(chosen: Choice | None) -> str:
    if chosen is None:
        return "one"
    if chosen.vendor == "amd":
        return f"amdgpu ({chosen.packaging})"
    version = chosen.version or chosen.branch
    return f"{version} ({chosen.modules}, {chosen.packaging}, from {chosen.source})"


def secure_boot(context: CheckContext) -> Iterator[Check]:
    """Whether Secure Boot allows the driver's modules: the kernel refuses unsigned ones."""
    if not context.report.system.secure_boot:
        yield ok("secure-boot", "off, or not supported")
        return
    try:
        chosen_driver(context.report, context.needs, context.report.system.machine)
        chosen_driver(
            context.report, context.needs, context.report.system.machine, secure_boot=True
        )
    except ValueError as error:
        if "Secure Boot" not in str(error):
            return
        if context.answers.own_key_enrolled:
            yield ok("secure-boot", "on, and the host's own key is enrolled")
            return
        # Only root can see which keys are enrolled.
        make_check = stop if context.answers.root else warning
        evidence = "on: unsigned modules are refused, and the host has no key of its own enrolled"
        yield make_check("secure-boot", evidence, _one_line(error))
        return
    yield ok("secure-boot", "on, with signed modules")


def _one_line(error: ValueError) -> str:
    return "; ".join(str(error).splitlines())


def capability(context: CheckContext) -> Iterator[Check]:
    """Whether the cards have the compute capability that the engine needs."""
    engine = context.needs.engine
    least = engine.needs.compute_capability if engine else None
    if engine is None or least is None:
        yield skipped("compute-capability", "the engine does not ask for one")
        return
    known, old = 0, {}
    for gpu in _gpus(context):
        card = find_card(gpu.name, gpu.memory_mib)
        found = gpu.compute_capability or (card.compute_capability if card else None)
        known += found is not None
        if found is not None and found < least:
            old.setdefault((gpu.name, found), []).append(gpu.index)
    for (name, found), indexes in old.items():
        evidence = f"{name} has compute capability {found}"
        yield stop(
            "compute-capability",
            f"GPU {', '.join(map(str, indexes))}: {evidence}, {engine.needs.name} needs {least}",
            f"no driver changes that: {_older_card_remedy(engine.needs, found)}",
        )
    if not known:
        yield skipped("compute-capability", "it is not known for these GPUs")
    elif not old:
        yield ok("compute-capability", f"{least} or more")


def _older_card_remedy(needs: EngineNeeds, capability: float) -> str:
    older = needs.older_build
    if older and capability >= older.compute_capability:
        return f"use newer GPUs, or {older.name}"
    return "use newer GPUs"


def faults(context: CheckContext) -> Iterator[Check]:
    """A check for each fault in the host's report; those that the run repairs pass."""
    for fault in context.report.faults:
        if _will_be_remediated(context, fault.kind):
            yield _remediated(context, fault)
        else:
            yield fault_check(fault)
    if not context.report.faults:
        yield ok("gpu-health", "no fault")


def _will_be_remediated(context: CheckContext, kind: str) -> bool:
    settings = context.needs.driver
    if settings is None or settings.install == "never":
        return False
    return kind in REMEDIATED or (
        kind in REMEDIATED_BY_ANOTHER_DRIVER and installs_driver(context.report, context.needs)
    )


def _remediated(context: CheckContext, fault: Fault) -> Check:
    assert context.needs.driver
    check = fault_check(fault)
    if fault.kind in REMEDIATED_BY_REBOOT and context.needs.driver.reboot == "never":
        return replace(
            check,
            outcome="warn",
            evidence=f"{fault.problem}; it takes a reboot",
            remedy=f"allow it with driver.reboot: when-needed, or by hand: {fault.remedy}",
        )
    evidence = f"{fault.problem}: the driver stage sees to it"
    return replace(check, outcome="pass", evidence=evidence, remedy="")


def memory_in_use(context: CheckContext) -> Check:
    """Whether GPU memory is used though no process is listed, as a killed process can leave it."""
    busy = {process.gpu_uuid for process in context.report.answers.processes}
    busy = [
        f"GPU {gpu.index} ({gpu.memory_used_mib} MiB)"
        for gpu in context.report.answers.gpus or ()
        if gpu.uuid not in busy and (gpu.memory_used_mib or 0) > _IDLE_MIB
    ]
    if busy and not context.report.answers.processes_read:
        return skipped(
            "gpu-memory", f"in use, and the driver lists no processes: {', '.join(busy)}"
        )
    if busy:
        return warning(
            "gpu-memory",
            f"memory is in use and no process is listed: {', '.join(busy)}",
            "look for a process in a container (sudo fuser -v /dev/nvidia*); else reboot the host",
        )
    if not context.report.answers.gpus:
        return skipped("gpu-memory", "no driver answers")
    return ok("gpu-memory", "free, or used by processes that are listed")
