"""Finds the faults in a host's answers. Each function checks one subject."""

import re
from collections.abc import Iterator

from roles.hardware.answers import ToolAnswers
from roles.hardware.devices import is_graphics
from roles.hardware.driver_faults import driver_faults
from roles.hardware.faults import Fault
from roles.hardware.gpus import Hardware
from roles.hardware.outputs.record import GpuRecord, Process
from roles.hardware.outputs.smi_error import fault_of, parse_smi_error
from roles.hardware.outputs.text import OutputError
from roles.hardware.outputs.values import is_denied
from roles.hardware.peers import peer_faults
from roles.hardware.system import System
from roles.hardware.xids import find_xid, xid_severity
from roles.host import paths

# More memory than a display server or a monitoring agent uses.
FOREIGN_MIB = 256
_FABRIC_OK = {"completed", "success", "n/a", "not supported"}
_RECOVERY = {
    "reset": "stop what uses the GPU, then: nvidia-smi --gpu-reset -i {gpu}",
    "reboot": "reboot the host",
    "drain p2p": "drain the host, then reboot it: peers of this GPU must not be used",
    "drain and reset": "drain the host, then reset the GPU: nvidia-smi --gpu-reset -i {gpu}",
}


def faults_of(
    answers: ToolAnswers, system: System, hardware: Hardware | None, foreign: list[Process]
) -> tuple[Fault, ...]:
    """All faults in the answers, the most severe first."""
    found = [
        *driver_faults(answers, system, hardware),
        *gpu_faults(answers),
        *incomplete_faults(answers, system, hardware),
        *persistence_faults(answers),
        *fabric_faults(answers, system, hardware),
        *memory_faults(answers),
        *log_faults(answers),
        *driver_log_faults(answers),
        *process_faults(answers, foreign),
        *slot_faults(hardware),
        *peer_faults(system, hardware),
        *(_unreadable(problem) for problem in answers.unreadable),
    ]
    return tuple(sorted(dict.fromkeys(found), key=lambda fault: fault.severity != "stop"))


def gpu_faults(answers: ToolAnswers) -> Iterator[Fault]:
    """GPUs that do not answer as they should."""
    for message in answers.messages:
        try:
            smi_error = parse_smi_error(message)
        except OutputError:
            continue
        named = smi_error.gpu_index is not None or smi_error.pci_address is not None
        absent = named and smi_error.pci_address not in {
            gpu.pci_address for gpu in answers.gpus or ()
        }
        severity = "warning" if absent else "stop"
        yield Fault(
            smi_error.fault, severity, smi_error.line, smi_error.remedy, smi_error.gpu_index, absent
        )
    sliced = {gpu.index for gpu in answers.slices}
    for gpu in answers.gpus or answers.amd_gpus or ():
        yield from _gpu_faults(gpu)
        if gpu.mig_mode and gpu.index not in sliced:
            yield Fault(
                "mig-without-slices",
                "stop",
                f"GPU {gpu.index} ({gpu.name}) is in MIG mode and has no slice: CUDA cannot use it",
                f"make slices (nvidia-smi mig -i {gpu.index} -cgi PROFILE -C), or end the mode "
                f"(nvidia-smi -i {gpu.index} -mig 0)",
                gpu.index,
            )
    status = answers.query.status
    if answers.gpus and not answers.messages and status != "0":
        yield Fault(
            "driver-fails",
            "warning",
            f"nvidia-smi answered but ended with status {status}",
            "run it on the host and see",
        )


def _gpu_faults(gpu: GpuRecord) -> Iterator[Fault]:
    where = f"GPU {gpu.index if gpu.index is not None else '?'} ({gpu.name or 'no name'})"
    if failed := _failed_values(gpu):
        message = failed[0]
        yield Fault(
            fault_of(message) or "gpu-unreadable",
            "stop",
            f"{where} does not answer ({message})",
            "reset the GPU (nvidia-smi --gpu-reset) or reboot the host",
            gpu.index,
        )
    action = (gpu.recovery_action or "none").lower()
    if action not in ("none", "n/a"):
        remedy = _RECOVERY.get(action, "follow NVIDIA's GPU debug guidelines")
        yield Fault(
            "gpu-recovery",
            "stop",
            f"{where} asks for recovery: {gpu.recovery_action}",
            remedy.format(gpu=gpu.index),
            gpu.index,
        )
    if gpu.compute_mode and gpu.compute_mode.lower() == "prohibited":
        yield Fault(
            "compute-prohibited",
            "stop",
            f"{where} is in compute mode Prohibited",
            f"nvidia-smi -i {gpu.index} -c DEFAULT",
            gpu.index,
        )


def _failed_values(gpu: GpuRecord) -> list[str]:
    """The values that the driver could not read, without those that only root may see: hosts are
    asked as an ordinary user, who sees little of a GPU in MIG mode."""
    return [message for message in gpu.unreadable if not is_denied(message.partition(": ")[2])]


def incomplete_faults(
    answers: ToolAnswers, system: System, hardware: Hardware | None
) -> Iterator[Fault]:
    """GPUs and slices that no plan can use because their name or memory is unknown."""
    if hardware is None:
        return
    found = hardware.gpus
    whole = {gpu.pci_address or gpu.index for gpu in found if not gpu.mig_profile}
    slices = {(gpu.mig_parent, gpu.mig_index) for gpu in found if gpu.mig_profile}
    parts = {gpu.index: gpu.mig_devices for gpu in answers.slices}
    for gpu in answers.gpus or answers.amd_gpus or ():
        where = f"GPU {gpu.index} ({gpu.name or 'no name'})"
        missing = (gpu.pci_address or gpu.index) not in whole
        for part in parts.get(gpu.index, ()):
            missing = False
            if (gpu.index, part.index) not in slices:
                yield _incomplete(f"slice {part.index} of {where}", "memory", gpu.index)
        if missing and not is_graphics(gpu, system) and not _failed_values(gpu):
            yield _incomplete(where, "memory" if gpu.name else "name", gpu.index)


def _incomplete(where: str, what: str, gpu: int | None) -> Fault:
    return Fault(
        "gpu-incomplete",
        "warning",
        f"{where} does not say its {what}, so it is left out",
        "run nvidia-smi (or amd-smi) on the host as root and see",
        gpu,
    )


def persistence_faults(answers: ToolAnswers) -> Iterator[Fault]:
    """GPUs without persistence mode, which power down when unused."""
    asleep = [str(gpu.index) for gpu in answers.gpus or () if gpu.persistence_mode is False]
    if asleep:
        yield Fault(
            "persistence-off",
            "warning",
            f"no persistence mode on GPU {', '.join(asleep)}",
            "enable nvidia-persistenced: without it each start of an engine waits 1-3 s a GPU",
        )


def fabric_faults(
    answers: ToolAnswers, system: System, hardware: Hardware | None
) -> Iterator[Fault]:
    """Faults of the NVLink fabric; without a working fabric CUDA does not start (error 802)."""
    yield from _outside_the_fabric(answers)
    states = {_fabric_state(gpu) for gpu in answers.gpus or ()}
    waiting = sorted(states - _FABRIC_OK)
    if states == {"completed"} or not (waiting or system.nvswitches):
        return
    why = (
        f"GPUs wait for their NVLink fabric ({', '.join(waiting)})"
        if waiting
        else "this host has NVSwitches"
    )
    if fault := _fabric_manager_fault(system, why):
        yield fault
    elif waiting:
        yield Fault(
            "fabric-not-ready",
            "stop",
            f"{why}, although nvidia-fabricmanager is active",
            "wait a minute after a start; else restart nvidia-fabricmanager and look at its log",
        )


def _outside_the_fabric(answers: ToolAnswers) -> Iterator[Fault]:
    """The GPUs that could not join their fabric."""
    for gpu in answers.gpus or ():
        status = (gpu.fabric_status or "n/a").lower()
        if _fabric_state(gpu) == "completed" and status not in _FABRIC_OK:
            yield Fault(
                "fabric-failed",
                "stop",
                f"GPU {gpu.index} ({gpu.name}) could not join its NVLink fabric: "
                f"{gpu.fabric_status}",
                "look at the fabric manager's log and dmesg, then reset the GPU",
                gpu.index,
            )


def _fabric_manager_fault(system: System, why: str) -> Fault | None:
    """What is wrong with the fabric manager, which is needed for a reason."""
    version = system.fabric_manager_version
    if system.fabric_manager != "active":
        return Fault(
            "fabric-manager-down",
            "stop",
            f"{why}, and nvidia-fabricmanager is {system.fabric_manager}",
            f"install nvidia-fabricmanager {system.driver_loaded or 'of the driver version'} and "
            "run: systemctl enable --now nvidia-fabricmanager; where it runs elsewhere (a switch "
            "of an NVL72 rack, a virtual machine's host), repair it there",
        )
    if version and system.driver_loaded not in (None, version):
        return Fault(
            "fabric-manager-version",
            "stop",
            f"nvidia-fabricmanager is {version}, the driver is {system.driver_loaded}",
            "install exactly the driver's version",
        )
    return None


def _fabric_state(gpu: GpuRecord) -> str:
    return (gpu.fabric_state or "n/a").lower()


def memory_faults(answers: ToolAnswers) -> Iterator[Fault]:
    """GPU memory that has failed, or that a reset must replace."""
    for gpu in answers.gpus or ():
        where = f"GPU {gpu.index} ({gpu.name})"
        if gpu.remapped_rows_failed:
            yield Fault(
                "row-remap-failed",
                "stop",
                f"{where} could not replace a failed row of its memory",
                "take the GPU out of service: it has to be exchanged",
                gpu.index,
            )
        elif gpu.remapped_rows_pending or gpu.retired_pages_pending:
            yield Fault(
                "row-remap-pending",
                "warning",
                f"{where} has failed memory that the next reset replaces",
                f"drain the host, then: nvidia-smi --gpu-reset -i {gpu.index}",
                gpu.index,
            )
        elif gpu.ecc_uncorrected:
            yield Fault(
                "ecc-uncorrected",
                "warning",
                f"{where} counts {gpu.ecc_uncorrected} uncorrected memory errors",
                "watch it; where the count grows, have the GPU exchanged",
                gpu.index,
            )


def log_faults(answers: ToolAnswers) -> Iterator[Fault]:
    """The Xids of this boot, one fault per number and GPU, with the last message."""
    found: dict[tuple[int, str], list[str]] = {}
    for xid in answers.kernel_log.xids:
        found.setdefault((xid.xid, xid.pci), []).append(xid.message)
    for (number, pci), messages in sorted(found.items()):
        known = find_xid(number)
        severity = xid_severity(number, messages[-1])
        meaning = f"{known.meaning} ({severity})" if known else "not in NVIDIA's catalogue"
        times = f", {len(messages)} times" if len(messages) > 1 else ""
        quoted = f"; it says {messages[-1]!r}" if messages[-1] else ""
        yield Fault(
            f"xid-{number}",
            "warning",
            f"the kernel log of this boot has Xid {number} of the GPU at {pci}{times}: {meaning}"
            f"{quoted}",
            known.action if known else "look at the kernel log; watch the GPU",
        )


def driver_log_faults(answers: ToolAnswers) -> Iterator[Fault]:
    """Faults without an Xid in the drivers' log lines of this boot, one per kind and GPU."""
    lines = (*answers.kernel_log.nvidia_faults, *answers.kernel_log.amd_faults)
    for fault in {(fault.kind, fault.pci): fault for fault in lines}.values():
        yield Fault(
            fault.kind,
            "warning",
            f"the kernel log of this boot says of the GPU at {fault.pci or '?'}: {fault.message}",
            "look at the kernel log; if it comes again, check the GPU's seat, power and cooling",
        )


def process_faults(answers: ToolAnswers, foreign: list[Process]) -> Iterator[Fault]:
    """Processes that use GPU memory and do not belong to this project."""
    indexes = {gpu.uuid: gpu.index for gpu in answers.gpus or () if gpu.uuid}
    for process in foreign:
        index = indexes.get(process.gpu_uuid or "")
        where = "a GPU" if index is None else f"GPU {index}"
        memory = f" with {process.used_memory_mib} MiB" if process.used_memory_mib else ""
        yield Fault(
            "foreign-process",
            "warning",
            f"process {process.pid} ({process.name}) uses {where}{memory}",
            "stop it, or keep that GPU out of the plan: an engine finds its memory taken",
            index,
        )


def slot_faults(hardware: Hardware | None) -> Iterator[Fault]:
    """Cards with fewer lanes or an older PCIe generation than they support."""
    slow: dict[str, list[str]] = {}
    for gpu in hardware.gpus if hardware else ():
        narrow = (gpu.pcie_width or 0) < (gpu.pcie_width_max or 0) and gpu.pcie_width
        old = (gpu.pcie_generation or 0) < (gpu.pcie_generation_max or 0) and gpu.pcie_generation
        if narrow or old:
            current = f"PCIe {gpu.pcie_generation or '?'} x{gpu.pcie_width or '?'}"
            possible = f"PCIe {gpu.pcie_generation_max or '?'} x{gpu.pcie_width_max or '?'}"
            slow.setdefault(f"{current} where {gpu.name} can do {possible}", []).append(
                str(gpu.index)
            )
    for slot, indexes in slow.items():
        yield Fault(
            "slow-slot",
            "warning",
            f"GPU {', '.join(indexes)} has {slot}",
            "check slot, riser and BIOS if GPUs work together on this host",
        )


def _unreadable(problem: str) -> Fault:
    return Fault(
        "unreadable-output",
        "warning",
        f"the host printed what cannot be read as {problem}",
        "its facts are missing; run the tool on the host and report it",
    )


def is_own_process(cgroup: str) -> bool:
    """Whether a process's control group belongs to one of this project's replicas."""
    return re.search(paths.UNIT_CGROUP, cgroup) is not None
