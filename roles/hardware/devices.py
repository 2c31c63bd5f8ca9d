"""From a host's answers to its `Hardware`: the GPUs that a driver offers, or those on its bus."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from roles.hardware.answers import ToolAnswers
from roles.hardware.cards import Card, cards_by_pci_id, find_card, is_integrated
from roles.hardware.gpus import Gpu, Hardware, links_among, reindexed_links
from roles.hardware.outputs.record import GpuRecord, MigDevice
from roles.hardware.settings import fit_card_name
from roles.hardware.system import PciDevice, System


def observed_hardware(answers: ToolAnswers, system: System) -> Hardware | None:
    """The GPUs that the driver reports; None if no driver answers.

    A GPU whose index, name or memory the driver does not tell is left out: `diagnosis` names it.
    Graphics of an AMD processor are no GPU to serve on, though amd-smi lists them beside cards; a
    driver that offers nothing else is none for the cards.
    """
    records = answers.gpus if answers.gpus is not None else answers.amd_gpus
    if records is None:
        return None
    if answers.gpus is None:
        records = [one for one in records if not is_graphics(one, system)]
        # AMD's tool does not speak for NVIDIA's cards.
        if not records or has_nvidia(answers, system):
            return None
    bus = {device.address: device for device in system.pci}
    share_mib = system.ram_share_mib(max(1, len(records)))
    whole = [gpu for gpu in (_gpu(record, bus, system, share_mib) for record in records) if gpu]
    whole.sort(key=lambda gpu: gpu.index)
    driver = next((record.driver_version for record in records if record.driver_version), None)
    links = answers.topology.links if answers.topology else answers.amd_links
    devices = _with_slices(whole, answers.slices)
    if devices == whole:
        indexes = {gpu.index for gpu in whole}
        among = links_among(links, indexes), links_among(answers.p2p, indexes)
        return Hardware(tuple(whole), *among, driver_version=driver)
    gpus = tuple(replace(device, index=place) for place, device in enumerate(devices))
    # Slices do not reach each other, so they have no links.
    places = {device.index: place for place, device in enumerate(devices) if not device.mig_profile}
    return Hardware(
        gpus, reindexed_links(links, places), reindexed_links(answers.p2p, places), driver
    )


def hardware_from_bus(answers: ToolAnswers, system: System) -> Hardware | None:
    """The GPUs on the PCI bus, if the table of cards identifies all of them; else None.

    This is for hosts without a driver. Two cards with one PCI id (A2 and A16, or two memory sizes)
    cannot be distinguished: such a host must be declared.
    """
    on_bus = accelerators(answers, system)
    cards = [_card(device_id) for _, device_id in on_bus]
    if not on_bus or not all(cards):
        return None
    share_mib = system.ram_share_mib(len(on_bus))
    gpus = tuple(
        _from_bus(index, card, address, device_id, system, share_mib)
        for index, (card, (address, device_id)) in enumerate(zip(cards, on_bus, strict=True))
        if card is not None
    )
    return Hardware(gpus) if all(gpu.memory_mib for gpu in gpus) else None


def accelerators(answers: ToolAnswers, system: System) -> list[tuple[str, str]]:
    """Address and PCI id of each GPU on the bus, in the bus's order.

    Integrated graphics are no accelerators: of AMD's display devices only known cards count.
    """
    found = {
        gpu.pci_address: gpu.pci_device_id
        for gpu in answers.pci_gpus
        if gpu.pci_address and gpu.pci_device_id
    }
    found |= {
        device.address: device.pci_device_id for device in system.pci if not device.is_nvswitch
    }
    # Of cards newer than the table, AMD's accelerators can be recognised: they have no display.
    computing = {
        device.address
        for device in system.pci
        if device.pci_device_id.startswith("1002:") and device.is_accelerator
    }
    return sorted(
        (address, device_id)
        for address, device_id in found.items()
        if device_id.startswith("10de:") or cards_by_pci_id(device_id) or address in computing
    )


def has_nvidia(answers: ToolAnswers, system: System) -> bool:
    """Whether an NVIDIA card is on the bus."""
    return any(device_id.startswith("10de:") for _, device_id in accelerators(answers, system))


def is_graphics(record: GpuRecord, system: System) -> bool:
    """Whether this is the graphics of an AMD processor, by its own PCI id or the one on the bus."""
    on_bus = {device.address: device.pci_device_id for device in system.pci}
    device_id = record.pci_device_id or on_bus.get(record.pci_address or "")
    return is_integrated(device_id, record.memory_total_mib)


def _gpu(
    record: GpuRecord, bus: Mapping[str, PciDevice], system: System, share_mib: int | None
) -> Gpu | None:
    card = find_card(record.name, record.memory_total_mib) if record.name else None
    memory_mib = (
        record.memory_total_mib
        or _shared_memory_mib(card, share_mib)
        or _memory_in_mig_mode(record, card)
    )
    name = fit_card_name(record.name or "")
    if record.index is None or not name or not memory_mib:
        return None
    device = bus.get(record.pci_address or "")
    return Gpu(
        index=record.index,
        name=name,
        memory_mib=memory_mib,
        reserved_mib=record.memory_reserved_mib,
        compute_capability=record.compute_capability,
        pci_address=record.pci_address,
        pci_device_id=record.pci_device_id or (device.pci_device_id if device else None),
        numa_node=device.numa_node if device and system.numa_nodes > 1 else record.numa_node,
        pcie_generation=record.pcie_generation_max,
        pcie_generation_max=record.pcie_generation_card,
        pcie_width=record.pcie_width,
        pcie_width_max=record.pcie_width_max,
    )


def _shared_memory_mib(card: Card | None, share_mib: int | None) -> int | None:
    """The memory of a GPU that shares it with the CPU, for which drivers print none.

    Each of several, such as the four MI300A of a host, has its own part of the host's memory.
    """
    return share_mib if card and card.unified_memory else None


def _memory_in_mig_mode(record: GpuRecord, card: Card | None) -> int | None:
    """The memory of a GPU in MIG mode, which the driver tells only root: its card's memory.

    Source: NVML's nvmlDeviceGetMemoryInfo, of MIG mode.
    """
    return card.memory_mib if card and record.mig_mode else None


def _with_slices(whole: list[Gpu], listed: Iterable[GpuRecord]) -> list[Gpu]:
    """The devices, with each slice of a GPU in MIG mode in that GPU's place and with its index."""
    slices = {record.index: record.mig_devices for record in listed}
    if not any(slices.values()):
        return whole
    devices = [
        device
        for gpu in whole
        for device in ([_slice(gpu, part) for part in slices.get(gpu.index) or ()] or [gpu])
    ]
    return [device for device in devices if device.memory_mib]


def _slice(gpu: Gpu, part: MigDevice) -> Gpu:
    profile = part.profile or "unknown"
    return replace(
        gpu,
        name=f"{gpu.name} MIG {profile}",
        memory_mib=part.memory_total_mib or slice_memory_mib(profile),
        reserved_mib=None,
        mig_profile=profile,
        mig_parent=gpu.index,
        mig_index=part.index,
    )


def slice_memory_mib(profile: str) -> int:
    """The memory by a profile's name: "3g.40gb" has 40 GB; 0 for a name without a size.

    The real value is slightly less (a 1g.10gb of an H100 has 9,856 MiB of 10,240). A compute
    instance ("1c.3g.40gb") shares its slice's memory with its neighbours.
    """
    size = re.search(r"\.([0-9]{1,4})gb", profile)
    return round(int(size[1]) * 1024 * 0.95) if size else 0


def _card(device_id: str) -> Card | None:
    found = cards_by_pci_id(device_id)
    return found[0] if len(found) == 1 else None


def _from_bus(
    index: int, card: Card, address: str, device_id: str, system: System, share_mib: int | None
) -> Gpu:
    device = next((device for device in system.pci if device.address == address), None)
    return Gpu(
        index=index,
        name=card.printed_name,
        memory_mib=card.memory_mib or _shared_memory_mib(card, share_mib) or 0,
        compute_capability=card.compute_capability,
        pci_address=address,
        pci_device_id=device_id,
        numa_node=device.numa_node if device else None,
        pcie_width=device.pcie_width if device else None,
        pcie_width_max=device.pcie_width_max if device else None,
    )
