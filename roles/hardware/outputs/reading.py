"""Converts printed values to a GPU's record: absent ones stay None, failed ones are listed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from roles.hardware.outputs import values
from roles.hardware.outputs.record import GpuRecord, MigDevice


@dataclass(frozen=True)
class Printed:
    """One value of an output: its field of the record, if any, its label and its text.

    The fields "ecc_volatile" and "ecc_aggregate" are counts of uncorrected errors to be summed.
    """

    field: str | None
    label: str
    text: str


def _watts(text: str) -> float | None:
    return values.number(text, "w")


def _celsius(text: str) -> int | None:
    value = values.number(text, "c")
    return int(value) if value is not None and value.is_integer() else None


def _percent(text: str) -> int | None:
    return values.whole(text, "%")


def _width(text: str) -> int | None:
    return values.whole(text, "x")


def _compute_mode(text: str) -> str | None:
    """The table shortens "Exclusive_Process" to "E. Process"."""
    return values.name_text(text.replace("E. ", "Exclusive_"))


_PARSERS: dict[str, Callable[[str], Any]] = {
    "index": values.whole,
    "name": values.name_text,
    "uuid": values.name_text,
    "serial": values.name_text,
    "pci_address": values.pci_address,
    "pci_device_id": values.pci_device_id,
    "driver_version": values.version,
    "compute_capability": values.number,
    "architecture": values.name_text,
    "compute_mode": _compute_mode,
    "recovery_action": values.name_text,
    **dict.fromkeys((f"power_{it}_w" for it in ("limit", "default", "min", "max")), _watts),
    "temperature_c": _celsius,
    "utilization_percent": _percent,
    "numa_node": values.whole,
    **dict.fromkeys(("fabric_state", "fabric_status", "fabric_health"), values.name_text),
    **dict.fromkeys(("pcie_generation", "pcie_generation_max"), values.whole),
    "pcie_generation_card": values.whole,
    **dict.fromkeys(("pcie_width", "pcie_width_max"), _width),
    **dict.fromkeys(("ecc_volatile", "ecc_aggregate"), values.whole),
    **dict.fromkeys((f"memory_{it}_mib" for it in ("total", "used", "free", "reserved")),
                    values.mebibytes),
    **dict.fromkeys(("persistence_mode", "ecc_mode", "mig_mode"), values.flag),
    **dict.fromkeys(("retired_pages_single_bit", "retired_pages_double_bit"), values.whole),
    **dict.fromkeys(("remapped_rows_correctable", "remapped_rows_uncorrectable"), values.whole),
    **dict.fromkeys(
        (
            "sram_threshold_exceeded",
            "channel_repair_pending",
            "tpc_repair_pending",
            "unrepairable_memory",
            "remapped_rows_pending",
            "remapped_rows_failed",
            "retired_pages_pending",
            "reset_required",
            "drain_and_reset_recommended",
        ),
        values.flag,
    ),
}  # fmt: skip
# XML has it twice, as a blacklist and as a retirement.
_ANY = ("retired_pages_pending",)
_SUMMED = ("ecc_volatile", "ecc_aggregate")


def gpu_record(
    printed: Iterable[Printed], mig_devices: tuple[MigDevice, ...] = (), **known: Any
) -> GpuRecord:
    """One GPU's record from its printed values; the first value of a field counts.

    A value that is neither valid for its field nor a placeholder is listed as unreadable. So is a
    failure in place of a value without a field, unless it is only a lack of permissions.
    """
    found: dict[str, Any] = {}
    unreadable: list[str] = []
    for item in printed:
        if values.is_absent(item.text):
            continue
        parse = _PARSERS.get(item.field or "")
        value = None if parse is None or values.is_failure(item.text) else parse(item.text)
        if value is not None and item.field in _SUMMED:
            found[item.field] = found.get(item.field, 0) + value
        elif value is not None and item.field in _ANY:
            found[item.field] = found.get(item.field, False) or value
        elif value is not None:
            found.setdefault(str(item.field), value)
        elif parse is not None or (
            values.is_failure(item.text) and not values.is_denied(item.text)
        ):
            unreadable.append(f"{item.label}: {item.text.strip()}")
    counts = [found.pop(scope) for scope in _SUMMED if scope in found]
    return GpuRecord(
        **found | {key: value for key, value in known.items() if value is not None},
        ecc_uncorrected=max(counts, default=None),
        mig_devices=mig_devices,
        unreadable=tuple(dict.fromkeys(unreadable)),
    )


def merged(older: GpuRecord, newer: GpuRecord) -> GpuRecord:
    """Two readings of one GPU merged: the newer one's values count if it has any."""
    stated = {
        item.name: getattr(newer, item.name)
        for item in fields(GpuRecord)
        if getattr(newer, item.name) not in (None, ())
    }
    return replace(older, **stated)
