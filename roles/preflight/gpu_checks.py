"""Will the GPUs serve: as planned, known to the engine, with a driver that suits it, well. Pure."""

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

# A GPU at rest holds less.
_IDLE_MIB = 1024


def gpu_checks(context: CheckContext) -> Iterator[Check]:
    """Every check of GPUs and their driver."""
    if context.needs.expected is None:
        return
    yield as_planned(context)
    yield driver(context)
    yield from secure_boot(context)
    yield from capability(context)
    yield from faults(context)
    yield memory_in_use(context)


def _gpus(context: CheckContext) -> tuple[Gpu, ...]:
    """As the host shows them, by its driver or its PCI bus; else as the inventory says."""
    found = context.report.hardware or context.report.presumed or context.needs.expected
    return found.gpus if found else ()


def as_planned(context: CheckContext) -> Check:
    """The inventory's GPUs against the host's, by PCI ids where no driver answers."""
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
            "check that the host has its cards (a virtual machine: that they are passed through)",
        )
    if different := bus_difference(expected, report):
        return stop("gpus", different, "")
    return ok("gpus", f"{summary(expected.gpus)}, by the PCI bus")


def driver(context: CheckContext) -> Check:
    """Whether the driver suits the engine, or will be made to."""
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
        return stop("driver", f"{why}, and none can be had", _one_line(error))
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
    """Modules that nobody signed are not loaded under Secure Boot."""
    if not context.report.system.secure_boot:
        yield ok("secure-boot", "off, or not there")
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
        # Without sudo nobody sees which keys are enrolled.
        make_check = stop if context.answers.root else warning
        evidence = "on: unsigned modules are refused, and no key of the host's own is enrolled"
        yield make_check("secure-boot", evidence, _one_line(error))
        return
    yield ok("secure-boot", "on, with signed modules")


def _one_line(error: ValueError) -> str:
    return "; ".join(str(error).splitlines())


def capability(context: CheckContext) -> Iterator[Check]:
    """Cards that no current engine can use."""
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
            f"no driver changes that: {_for_older_cards(engine.needs, found)}",
        )
    if not known:
        yield skipped("compute-capability", "it is not known for these cards")
    elif not old:
        yield ok("compute-capability", f"{least} or more")


def _for_older_cards(needs: EngineNeeds, capability: float) -> str:
    older = needs.older_build
    if older and capability >= older.compute_capability:
        return f"use newer cards, or {older.name}"
    return "use newer cards"


def faults(context: CheckContext) -> Iterator[Check]:
    """The faults that the host's report shows, each under its own name."""
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
    """GPUs whose memory is held though no process shows: left behind by a killed one."""
    busy = {process.gpu_uuid for process in context.report.answers.processes}
    busy = [
        f"GPU {gpu.index} ({gpu.memory_used_mib} MiB)"
        for gpu in context.report.answers.gpus or ()
        if gpu.uuid not in busy and (gpu.memory_used_mib or 0) > _IDLE_MIB
    ]
    if busy and not context.report.answers.processes_read:
        return skipped(
            "gpu-memory", f"held, and the driver does not say by whom: {', '.join(busy)}"
        )
    if busy:
        return warning(
            "gpu-memory",
            f"memory is held and no process shows: {', '.join(busy)}",
            "look for a process in a container (sudo fuser -v /dev/nvidia*); else reboot the host",
        )
    if not context.report.answers.gpus:
        return skipped("gpu-memory", "no driver answers")
    return ok("gpu-memory", "free, or held by processes that show")
