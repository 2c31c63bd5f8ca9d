"""Compares a host's hardware with its inventory, and describes the differences."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from roles.hardware.cards import cards_by_pci_id, find_card
from roles.hardware.devices import accelerators
from roles.hardware.gpus import SOME_NVLINK, SOME_PCIE, Gpu, Hardware, Links, by_driver_index
from roles.hardware.report import HardwareReport

# Driver versions report a few MiB more or less for the same card.
MEMORY_TOLERANCE = 0.01
# Depending on card and driver a slice has up to a tenth less than its profile's name says; profiles
# are compared by name.
SLICE_TOLERANCE = 0.1

ADVICE = (
    "Repair the host, or take its new state: change gpus in the inventory where they are declared "
    "there, or deploy with --data accept_hardware=true where they are recorded."
)


def difference(expected: Hardware, report: HardwareReport) -> str | None:
    """A description of both sides and their differences; None if the host matches the inventory.

    The number, names and memory of GPUs (within 1 %; slices 10 %) are compared, and links and
    driver if the inventory has them. A host whose driver does not answer differs: its message shows
    the PCI bus.
    """
    observed = report.hardware
    if observed is None:
        return _no_driver_message(expected, report)
    differences = "; ".join(findings(expected, observed))
    if not differences:
        return None
    return (
        f"{summary(expected.gpus)} in the inventory; the host reports: "
        f"{summary(observed.gpus)} — {differences}. {_fault_sentences(report)}{ADVICE}"
    )


def bus_difference(expected: Hardware, report: HardwareReport) -> str | None:
    """The same for a host without a driver: compares the number and kinds of cards on its PCI bus.

    A device that the table of cards lacks matches any card.
    """
    # One slice represents its GPU: the bus shows no slices.
    expected_gpus = {index: devices[0] for index, devices in by_driver_index(expected.gpus).items()}
    on_bus = accelerators(report.answers, report.system)
    found = [cards_by_pci_id(device_id) for _, device_id in on_bus]
    differences = []
    if len(expected_gpus) != len(found):
        differences.append(f"{len(found)} GPUs are on the bus, not {len(expected_gpus)}")
    for (index, gpu), known in zip(expected_gpus.items(), found, strict=False):
        card = find_card(gpu.name, None if gpu.mig_profile else gpu.memory_mib)
        if known and card is not None and card not in known:
            names = " or ".join(sorted({one.printed_name for one in known}))
            differences.append(f"GPU {index} is {names} by its PCI id, not {gpu.name}")
    return _bus_message(expected, report, differences) if differences else None


def findings(expected: Hardware, observed: Hardware) -> Iterator[str]:
    """A description of each difference between observed and expected hardware."""
    yield from gpu_findings(expected.gpus, observed.gpus)
    if [gpu.index for gpu in expected.gpus] == [gpu.index for gpu in observed.gpus]:
        yield from _link_findings(expected.links, observed.links)
    if expected.driver_version and observed.driver_version != expected.driver_version:
        yield f"the driver is {observed.driver_version}, not {expected.driver_version}"


def summary(gpus: Sequence[Gpu]) -> str:
    """A short description of the GPUs, in order: `1x NVIDIA L4 (23034 MiB) + 2x NVIDIA L40S (46068
    MiB)`."""
    groups = groupby(gpus, key=lambda gpu: f"{gpu.name} ({gpu.memory_mib} MiB)")
    return " + ".join(f"{len(list(group))}x {kind}" for kind, group in groups) or "no GPU"


def gpu_findings(expected: Sequence[Gpu], observed: Sequence[Gpu]) -> Iterator[str]:
    """Descriptions of GPUs that are missing, new or different.

    GPUs are compared by PCI address if both sides have it: a lost GPU renumbers later ones. Slices
    and partitions, which share an address, are compared by index.
    """
    by_address = _have_own_addresses(expected) and _have_own_addresses(observed)

    def key_of(gpu: Gpu) -> tuple[int, str]:
        return (0, gpu.pci_address or "") if by_address else (gpu.index, "")

    expected_by_key = {key_of(gpu): gpu for gpu in expected}
    observed_by_key = {key_of(gpu): gpu for gpu in observed}
    if by_address and not expected_by_key.keys() & observed_by_key.keys():
        # All addresses differ, as after a move of the disk: compare by index.
        expected_by_key = {(gpu.index, ""): gpu for gpu in expected}
        observed_by_key = {(gpu.index, ""): gpu for gpu in observed}
    for key in sorted(expected_by_key.keys() | observed_by_key.keys()):
        finding = _finding(expected_by_key.get(key), observed_by_key.get(key))
        if finding:
            yield finding


def _have_own_addresses(gpus: Sequence[Gpu]) -> bool:
    addresses = {gpu.pci_address for gpu in gpus if gpu.pci_address and not gpu.mig_profile}
    return len(addresses) == len(gpus)


def _finding(expected: Gpu | None, observed: Gpu | None) -> str | None:
    if observed is None:
        assert expected is not None
        where = f" ({expected.name} at {expected.pci_address})" if expected.pci_address else ""
        return f"GPU {expected.index}{where} is missing"
    if expected is None:
        return f"GPU {observed.index} ({observed.name}) is new"
    if expected.name != observed.name:
        return f"GPU {observed.index} is {observed.name}, not {expected.name}"
    tolerance = SLICE_TOLERANCE if expected.mig_profile else MEMORY_TOLERANCE
    if abs(observed.memory_mib - expected.memory_mib) > tolerance * expected.memory_mib:
        return f"GPU {observed.index} has {observed.memory_mib} MiB, not {expected.memory_mib} MiB"
    return None


def _link_findings(expected: Links | None, observed: Links | None) -> Iterator[str]:
    """Descriptions of different links; links that either side does not know are skipped."""
    found = {(i, j): label for i, j, label in observed or ()}
    changed = [
        (i, j, label, found[i, j])
        for i, j, label in expected or ()
        if (i, j) in found and not _same_link(label, found[i, j])
    ]
    for i, j, label, now in changed[:4]:
        yield f"GPUs {i} and {j} are linked by {now}, not {label}"
    if len(changed) > 4:
        yield f"and {len(changed) - 4} more links have changed"


def _same_link(expected: str, found: str) -> bool:
    nvlink = found.startswith("NV")
    if expected == SOME_NVLINK:
        return nvlink or found == "XGMI"
    if expected == SOME_PCIE:
        return not nvlink and found != "XGMI"
    return expected == found


def _bus_message(expected: Hardware, report: HardwareReport, differences: Sequence[str]) -> str:
    shown = _on_bus(report)
    return (
        f"{summary(expected.gpus)} in the inventory; the host's PCI bus shows {shown} — "
        f"{'; '.join(differences)}. {ADVICE}"
    )


def _no_driver_message(expected: Hardware, report: HardwareReport) -> str:
    """The message if no driver answers, with the GPUs on the PCI bus."""
    return (
        f"{summary(expected.gpus)} in the inventory; no driver of the host could be asked "
        f"(its PCI bus shows {_on_bus(report)}). {_fault_sentences(report)}Repair the host."
    )


def _on_bus(report: HardwareReport) -> str:
    bus = [
        f"{gpu.name or 'a device'} [{gpu.pci_device_id or '?'}] at {gpu.pci_address}"
        for gpu in report.answers.pci_gpus
    ]
    return summary(report.presumed.gpus) if report.presumed else ", ".join(bus) or "no GPU"


def _fault_sentences(report: HardwareReport) -> str:
    relevant = [fault for fault in report.faults if fault.severity == "stop" or fault.absent]
    return "".join(f"{str(fault).rstrip('.')}. " for fault in relevant)
