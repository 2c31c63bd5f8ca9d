"""The hardware of a host once its GPUs are sliced as the inventory declares. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from roles.hardware import (
    Gpu,
    Hardware,
    HardwareReport,
    by_driver_index,
    find_card,
    reindexed_links,
    slice_memory_mib,
)
from roles.tuning.mig_cards import by_size, layout_problem

Mig = Mapping[int, Sequence[str]]


def with_mig(hardware: Hardware, mig: Mig | None) -> Hardware:
    """The hardware after the GPUs that `mig` names are sliced so.

    Existing slices in that layout keep everything that is known of them. The memory of a new slice
    follows from its profile's name. Links and verdicts are those between whole GPUs: slices do not
    reach each other. The ValueError begins with `mig`, for a GPU that does not exist, cannot be
    sliced so, or is AMD's.
    """
    if not mig:
        return hardware
    groups = by_driver_index(hardware.gpus)
    for index in sorted(mig):
        if index not in groups:
            known = ", ".join(map(str, groups)) or "none"
            raise ValueError(f"mig[{index}]: there is no GPU {index}; the host has {known}")
        whole = _whole(groups[index][0])
        if " MIG " in whole.name:
            raise ValueError(
                f"mig[{index}]: GPU {index} is declared as a slice ({whole.name}); declare the "
                "whole GPUs in gpus, the slices follow from mig"
            )
        card = find_card(whole.name, whole.memory_mib or None)
        if problem := layout_problem(card, mig[index]):
            raise ValueError(f"mig[{index}]: {problem}")
        if layout(groups[index]) != by_size(mig[index]):
            groups[index] = [
                _slice(whole, index, number, profile)
                for number, profile in enumerate(by_size(mig[index]))
            ]
    return _reindexed_hardware(hardware, [device for group in groups.values() for device in group])


def _reindexed_hardware(hardware: Hardware, devices: Sequence[Gpu]) -> Hardware:
    """The hardware with these devices, renumbered, and the links and verdicts of its whole GPUs."""
    new_index = {
        device.index: position for position, device in enumerate(devices) if not device.mig_profile
    }
    return Hardware(
        tuple(replace(device, index=position) for position, device in enumerate(devices)),
        reindexed_links(hardware.links, new_index),
        reindexed_links(hardware.p2p, new_index),
        hardware.driver_version,
        tuple(
            replace(one, gpus=tuple(new_index[gpu] for gpu in one.gpus))
            for one in hardware.interconnect
            if new_index.keys() >= set(one.gpus)
        ),
    )


def with_planned_mig(report: HardwareReport, mig: Mig | None) -> HardwareReport:
    """The report of a host as if its GPUs were sliced as declared.

    Comparisons before the slicing use it: whole GPUs, other slices and a GPU in MIG mode without
    slices are then neither a difference nor a fault. Hardware that cannot be sliced so is
    unchanged.
    """
    if not mig:
        return report

    def sliced(hardware: Hardware | None) -> Hardware | None:
        try:
            return hardware and with_mig(hardware, mig)
        except ValueError:
            return hardware

    faults = tuple(
        fault
        for fault in report.faults
        if not (fault.kind == "mig-without-slices" and fault.gpu in mig)
    )
    return replace(
        report,
        hardware=sliced(report.hardware),
        presumed=sliced(report.presumed),
        faults=faults,
    )


def layout(devices: Sequence[Gpu]) -> tuple[str, ...]:
    """The profiles of one GPU's slices, the largest first; empty if it is whole."""
    return by_size([device.mig_profile for device in devices if device.mig_profile])


def _whole(device: Gpu) -> Gpu:
    """The whole GPU of a slice; its memory is 0 if its card is unknown."""
    if device.mig_profile is None:
        return device
    name = device.name.removesuffix(f" MIG {device.mig_profile}")
    card = find_card(name)
    memory_mib = card.memory_mib if card and card.memory_mib else 0
    return replace(
        device,
        name=name,
        memory_mib=memory_mib,
        mig_profile=None,
        mig_parent=None,
        mig_index=None,
    )


def _slice(whole: Gpu, parent: int, number: int, profile: str) -> Gpu:
    """A slice in the form in which `roles.hardware` reports an existing one."""
    return replace(
        whole,
        name=f"{whole.name} MIG {profile}",
        memory_mib=slice_memory_mib(profile),
        reserved_mib=None,
        mig_profile=profile,
        mig_parent=parent,
        mig_index=number,
    )
