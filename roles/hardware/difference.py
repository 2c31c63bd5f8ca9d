"""Whether a host has the GPUs that its inventory declares, in words for a person."""

from collections.abc import Sequence
from itertools import groupby

from roles.hardware.gpus import Gpu, Hardware
from roles.hardware.report import HostReport

# Drivers of one card differ by a few MiB in what they report.
MEMORY_TOLERANCE = 0.01

_ADVICE = "Mend the host or change gpus in the inventory."


def difference(declared: Hardware, observed: HostReport | Sequence[Gpu]) -> str | None:
    """None where number, names by index and memory (within 1 %) agree, else both sides."""
    if not isinstance(observed, HostReport):
        return _compare(declared, observed, ())
    if observed.gpus is None:
        return _unasked(declared, observed)
    return _compare(declared, observed.gpus, observed.faults)


def summary(gpus: Sequence[Gpu]) -> str:
    """The GPUs in short, in order: `1x NVIDIA L4 (23034 MiB) + 2x NVIDIA L40S (46068 MiB)`."""
    groups = groupby(gpus, key=lambda gpu: f"{gpu.name} ({gpu.memory_mib} MiB)")
    return " + ".join(f"{len(list(group))}x {kind}" for kind, group in groups) or "no GPU"


def _compare(declared: Hardware, gpus: Sequence[Gpu], faults: tuple[str, ...]) -> str | None:
    wanted = {gpu.index: gpu for gpu in declared.gpus}
    found = {gpu.index: gpu for gpu in gpus}
    indexes = sorted(wanted.keys() | found.keys())
    findings = [_finding(index, wanted.get(index), found.get(index)) for index in indexes]
    told = "; ".join(finding for finding in findings if finding)
    if not told:
        return None
    return (
        f"declared: {summary(declared.gpus)}; the host reports: {summary(gpus)} — {told}. "
        f"{_sentences(faults)}{_ADVICE}"
    )


def _finding(index: int, wanted: Gpu | None, found: Gpu | None) -> str | None:
    if found is None:
        return f"GPU {index} is missing"
    if wanted is None:
        return f"GPU {index} is not declared"
    if wanted.name != found.name:
        return f"GPU {index} is {found.name}, not {wanted.name}"
    if abs(found.memory_mib - wanted.memory_mib) > MEMORY_TOLERANCE * wanted.memory_mib:
        return f"GPU {index} has {found.memory_mib} MiB, not {wanted.memory_mib} MiB"
    return None


def _unasked(declared: Hardware, report: HostReport) -> str:
    """The message where no driver could be asked: what the PCI bus shows must do."""
    on_bus = [f"{gpu.name} [{gpu.device_id}] at {gpu.address}" for gpu in report.pci_gpus]
    bus = ", ".join(on_bus) or "no GPU"
    return (
        f"declared: {summary(declared.gpus)}; no driver of the host could be asked "
        f"(its PCI bus shows {bus}). {_sentences(report.faults)}{_ADVICE}"
    )


def _sentences(faults: tuple[str, ...]) -> str:
    return "".join(f"{fault.rstrip('.')}. " for fault in faults)
