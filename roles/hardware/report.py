"""The hardware report of a host: the question to it, and the parser of its answer."""

from dataclasses import dataclass
from pathlib import Path

from roles.hardware.answers import ToolAnswers, ToolOutput, read_answers
from roles.hardware.devices import hardware_from_bus, observed_hardware
from roles.hardware.diagnosis import FOREIGN_MIB, faults_of, is_own_process
from roles.hardware.faults import Fault
from roles.hardware.gpus import Hardware
from roles.hardware.outputs.record import Process
from roles.hardware.system import System, parse_system
from roles.host import Part, Sections, require

PART = Part("hardware", Path(__file__).with_name("ask.sh").read_text(encoding="utf-8"))

_STATUS = "@@= "
_SYSTEM = (
    *("os", "kernel", "memory", "shm", "numa", "secure-boot", "modules", "nvidia-loaded"),
    *("nvidia-installed", "nvidia-license", "fabric-manager", "pci"),
)
# Sections that some hosts, or users without sudo, do not provide.
_SYSTEM_TOO = (
    *("nvidia-loaded-kind", "virtualization", "numa-balancing", "paths", "acs", "machine"),
    *("dpkg-audit", "reboot-required"),
)


@dataclass(frozen=True)
class HardwareReport:
    """A host's user, system, GPUs and faults.

    `hardware` is None if no driver answers; `presumed` is then the hardware that the PCI bus and
    the table of cards show, None if they do not determine it. `answers` are the tools' parsed
    outputs.
    """

    root: bool
    passwordless_sudo: bool
    system: System
    answers: ToolAnswers
    hardware: Hardware | None
    presumed: Hardware | None
    faults: tuple[Fault, ...]

    @property
    def blocking_faults(self) -> tuple[Fault, ...]:
        """The faults that prevent serving."""
        return tuple(fault for fault in self.faults if fault.severity == "stop")

    @property
    def devices(self) -> dict[int, str]:
        """CUDA's name of each device, its UUID, by `Gpu.index`; empty if CUDA uses the index.

        The index is no use with MIG slices, which CUDA does not count, and if a GPU does not
        answer: CUDA numbers the others without a gap.
        """
        gpus = self.hardware.gpus if self.hardware else ()
        counted_otherwise = any(gpu.mig_profile for gpu in gpus)
        if not counted_otherwise and not any(fault.absent for fault in self.faults):
            return {}
        return {index: ids["uuid"] for index, ids in self.identifiers.items() if "uuid" in ids}

    @property
    def identifiers(self) -> dict[int, dict[str, str]]:
        """UUID and serial number of each device by `Gpu.index`, as far as they are known.

        A slice has its own UUID and its GPU's serial number.
        """
        slices = {
            (gpu.index, part.index): part.uuid
            for gpu in self.answers.slices
            for part in gpu.mig_devices
        }
        records_by_address = {
            gpu.pci_address: gpu for gpu in self.answers.gpus or () if gpu.pci_address
        }
        found = {}
        for gpu in self.hardware.gpus if self.hardware else ():
            record = records_by_address.get(gpu.pci_address or "")
            uuid = record.uuid if record else None
            if gpu.mig_parent is not None and gpu.mig_index is not None:
                uuid = slices.get((gpu.mig_parent, gpu.mig_index))
            pairs = (("uuid", uuid), ("serial", record.serial if record else None))
            found[gpu.index] = {key: value for key, value in pairs if value}
        return found


def parse_report(sections: Sections) -> HardwareReport:
    """Parse a host's answer to `PART`; ValueError if it is cut short or reports a problem."""
    if "no-room" in sections:
        raise ValueError(
            "the host's tools cannot be asked: neither /dev/shm nor /tmp takes a file (full, or "
            "read only); make room"
        )
    require(sections, ("user", "sudo", *_SYSTEM, "owners"), "its hardware")
    parts = {label: _output(text) for label, text in sections.items()}
    system = parse_system(
        {name: part.text for name, part in parts.items() if name in (*_SYSTEM, *_SYSTEM_TOO)}
    )
    answers = read_answers(parts)
    hardware = observed_hardware(answers, system)
    foreign = foreign_processes(answers, parts["owners"].text)
    return HardwareReport(
        root=parts["user"].text.strip() == "0",
        passwordless_sudo=parts["sudo"].text.strip() == "yes",
        system=system,
        answers=answers,
        hardware=hardware,
        presumed=hardware_from_bus(answers, system) if hardware is None else None,
        faults=faults_of(answers, system, hardware, foreign),
    )


def foreign_processes(answers: ToolAnswers, owners: str) -> list[Process]:
    """Processes that use more than `FOREIGN_MIB` of a GPU and belong to no replica of ours."""
    groups = dict(line.split(" ", 1) for line in owners.splitlines() if " " in line.strip())
    return [
        process
        for process in answers.processes
        if not is_own_process(groups.get(str(process.pid), ""))
        and (process.used_memory_mib is None or process.used_memory_mib > FOREIGN_MIB)
    ]


def _output(text: str) -> ToolOutput:
    """A section's text, and the exit status of its program."""
    lines = text.splitlines()
    statuses = [line for line in lines if line.startswith(_STATUS)]
    status = statuses[-1].removeprefix(_STATUS).strip() if statuses else "0"
    own = "\n".join(line for line in lines if not line.startswith(_STATUS))
    return ToolOutput(own.strip("\n"), status)
