"""Whether a run will install or change the GPU driver of a host. Pure."""

import re

from roles.driver import Choice, OperatingSystem, choose, good_enough, is_amd
from roles.driver import plan as package_plan
from roles.hardware import HardwareReport
from roles.preflight.needs import HostNeeds


def loaded_version(report: HardwareReport) -> str | None:
    """The version of the driver that reports the GPUs, else of NVIDIA's loaded module, else
    None."""
    answers = report.hardware.driver_version if report.hardware else None
    for version in (answers, report.system.driver_loaded):
        if version and re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})*", version):
            return version
    return None


def required_branch(needs: HostNeeds) -> int | None:
    """The oldest NVIDIA branch that suits the engines; None where they need none."""
    return needs.engine.needs.driver_branch if needs.engine else None


def install_reason(report: HardwareReport, needs: HostNeeds) -> str | None:
    """Why a driver must be installed on this host; None where it needs none, or has a good one.

    The inventory's GPUs decide, as in the driver stage, even where the engine computes on the CPU.
    A driver that is loaded and does not answer is reported as a fault of its own.
    """
    settings, engine = needs.driver, needs.engine
    gpus = needs.expected.gpus if needs.expected else ()
    if settings is None or engine is None or not gpus:
        return None
    if is_amd(gpus):
        return None if report.hardware else "no AMD driver answers"
    loaded = loaded_version(report)
    if loaded is None:
        return "no NVIDIA driver is loaded"
    if good_enough(settings, engine.needs, loaded):
        return None
    wanted = settings.version or settings.branch or f"{engine.needs.driver_branch} or newer"
    return f"driver {loaded} is loaded, {wanted} is needed"


def installs_driver(report: HardwareReport, needs: HostNeeds) -> bool:
    """Whether a run will install a driver on this host."""
    may = needs.driver is not None and needs.driver.install != "never"
    return may and install_reason(report, needs) is not None


def has_gpu(report: HardwareReport) -> bool:
    """Whether a GPU of NVIDIA or AMD is on the PCI bus."""
    return any(pci_id.startswith(("10de:", "1002:")) for pci_id in _on_bus(report))


def _on_bus(report: HardwareReport) -> list[str]:
    own = [device.pci_device_id for device in report.system.pci if not device.is_nvswitch]
    return own + [gpu.pci_device_id or "" for gpu in report.answers.pci_gpus]


def chosen_driver(
    report: HardwareReport, needs: HostNeeds, machine: str = "x86_64", secure_boot: bool = False
) -> Choice | None:
    """The driver that a run will install; None where it installs none.

    ValueError where no driver suits, with the reason. Only the driver stage looks whether the host
    has enrolled a key of its own for Secure Boot.
    """
    settings, engine, expected = needs.driver, needs.engine, needs.expected
    if settings is None or engine is None or expected is None or not installs_driver(report, needs):
        return None
    nvswitches = report.system.nvswitches
    system = _system(report, machine)
    return choose(settings, engine.needs, expected.gpus, system, nvswitches, secure_boot)


def repository_url(report: HardwareReport, needs: HostNeeds) -> str | None:
    """The URL of a file in the driver's repository or its mirror, which the host must reach.

    None where the driver comes from elsewhere, or none is installed.
    """
    try:
        chosen = chosen_driver(report, needs)
    except ValueError:
        return None
    if chosen is None or needs.driver is None:
        return None
    system, kernel = _system(report, "x86_64"), report.system.kernel
    repository = package_plan(chosen, system, kernel, needs.driver.mirror).repository
    return repository.check_url if repository else None


def _system(report: HardwareReport, machine: str) -> OperatingSystem:
    name, _, version = report.system.os.partition(" ")
    return OperatingSystem(name, version, machine)
