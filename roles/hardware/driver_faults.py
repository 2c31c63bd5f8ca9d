"""Faults of a host's driver: it does not answer, or another version is installed."""

import re
from collections.abc import Iterator

from roles.hardware.answers import ToolAnswers
from roles.hardware.cards import cards_by_pci_id
from roles.hardware.devices import accelerators, has_nvidia
from roles.hardware.faults import Fault
from roles.hardware.gpus import Hardware
from roles.hardware.system import System

SMI_TIMEOUT_S = 30


def driver_faults(
    answers: ToolAnswers, system: System, hardware: Hardware | None
) -> Iterator[Fault]:
    """The faults of a driver that does not answer or is not the installed version."""
    if answers.query.hung:
        yield Fault(
            "driver-hangs",
            "stop",
            f"nvidia-smi gave no answer in {SMI_TIMEOUT_S} s",
            "the driver hangs; look for Xid errors in the kernel log and reboot the host",
        )
    elif answers.error is not None:
        yield _kind_fault(answers, system) or Fault(
            answers.error.fault, "stop", answers.error.line, answers.error.remedy
        )
    elif answers.gpus is None and hardware is None:
        yield _no_driver(answers, system)
    # Beside a working driver nouveau may drive an old display card.
    if "nouveau" in system.modules and answers.gpus is None:
        yield Fault(
            "nouveau-loaded",
            "stop",
            "the kernel's nouveau driver holds the GPUs",
            "blacklist nouveau (modprobe.d: blacklist nouveau, options nouveau modeset=0), rebuild "
            "the initramfs, reboot",
        )
    loaded, installed = system.driver_loaded, system.driver_installed
    if loaded and installed and loaded != installed:
        yield Fault(
            "driver-not-reloaded",
            "warning",
            f"driver {loaded} is loaded, {installed} is installed",
            "reboot the host when it may stop serving; until then its tools may fail",
        )


def _kind_fault(answers: ToolAnswers, system: System) -> Fault | None:
    """The fault of a working driver that finds no GPU: cards since Blackwell need its open modules.

    Source: NVIDIA's Driver Installation Guide, "Kernel Modules".
    """
    cards = [
        card
        for _, device_id in accelerators(answers, system)
        for card in cards_by_pci_id(device_id)
    ]
    newest = next((card.name for card in cards if card.generation == "Blackwell"), None)
    finds_none = answers.error is not None and answers.error.fault == "no-devices"
    is_open = system.driver_open if system.loaded_open is None else system.loaded_open
    if not finds_none or newest is None or is_open is not False:
        return None
    return Fault(
        "driver-kind",
        "stop",
        f"the driver runs with its proprietary kernel modules, and {newest} needs the open ones",
        "install them where they are not (deploys/drivers.py does), and reboot",
    )


def _no_driver(answers: ToolAnswers, system: System) -> Fault:
    if not answers.query.missing:
        lines = answers.query.text.strip().splitlines()
        return Fault(
            "driver-fails",
            "stop",
            f"nvidia-smi failed with status {answers.query.status}: {lines[0] if lines else ''!r}",
            "run it on the host and see; look at dmesg",
        )
    on_bus = accelerators(answers, system)
    if not on_bus and (system.pci or not answers.no_lspci):
        return Fault(
            "no-gpu",
            "stop",
            "no nvidia-smi, and no NVIDIA or AMD GPU on the PCI bus",
            "check that the host has its GPUs",
        )
    nvidia = has_nvidia(answers, system)
    if answers.amd_gpus is not None and not nvidia:
        problem = "amdgpu drives none of the AMD GPUs on the PCI bus"
        return Fault("driver-missing", "stop", problem, "install amdgpu-dkms, reboot")
    if not answers.amd.missing and not nvidia:
        return _amd_fails(answers, system)
    problem, remedy = "no nvidia-smi and no lspci", "install the NVIDIA driver and pciutils"
    if nvidia:
        problem = "no nvidia-smi: the NVIDIA driver is not installed"
        remedy = "install it, of the branch that the host's engines need (deploys/drivers.py does)"
    elif on_bus:
        problem = "no amd-smi and no rocm-smi: the ROCm driver is not installed"
        remedy = "install amdgpu-dkms and amd-smi"
    return Fault("driver-missing", "stop", problem, remedy)


def _amd_fails(answers: ToolAnswers, system: System) -> Fault:
    """Why AMD's tool lists no GPU, from its output.

    Sources: amdsmi's check_required_groups (an error in ROCm 7.0, a warning before it) and its
    amdsmi_init, which both print to the terminal.
    """
    output, tool = answers.amd, answers.amd_tool
    if output.hung:
        problem = f"{tool} gave no answer in {SMI_TIMEOUT_S} s"
        remedy = "the driver hangs; look for amdgpu in the kernel log and reboot the host"
        return Fault("driver-hangs", "stop", problem, remedy)
    if "amdgpu" not in system.modules:
        problem = f"amdgpu is not loaded, so {tool} lists no GPU"
        return Fault(
            "driver-not-loaded", "stop", problem, "modprobe amdgpu; if that fails, see dmesg"
        )
    lines = [line.strip() for line in output.text.splitlines() if line.strip()] or [""]
    line = lines[-1 if "Traceback" in output.text else 0]
    remedy = "look for amdgpu in the kernel log: dmesg | grep amdgpu"
    if re.search("required groups|[Pp]ermission", output.text):
        remedy = (
            "let the login use sudo without a password, or add it to the groups of the devices "
            "(usermod -aG render,video USER)"
        )
    problem = f"{tool} lists no GPU (status {output.status}): {line[:200]!r}"
    return Fault("driver-fails", "stop", problem, remedy)
