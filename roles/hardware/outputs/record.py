"""The record of one GPU in one output; fields that the output lacks are None."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MigDevice:
    """A slice of a GPU in MIG mode; `profile` as printed, e.g. "1g.10gb"."""

    index: int
    profile: str | None = None
    uuid: str | None = None
    memory_total_mib: int | None = None
    gpu_instance_id: int | None = None
    compute_instance_id: int | None = None


@dataclass(frozen=True)
class GpuRecord:
    """One GPU as one output shows it, in the order of the output.

    `index` and `name` are the driver's; `pci_address` is "0000:3b:00.0" in lower case (a domain of
    at least four digits, "0000" if the output has none), `pci_device_id` "10de:26b9" likewise.
    The PCIe generation is that of this moment (a card at rest lowers it), `_max` what card and slot
    can do together, `_card` what the card can do. Memory is in MiB, power in watts.
    `ecc_uncorrected` is the larger of the volatile and aggregate counts of uncorrected errors.
    `unreadable` lists what the driver could not read, as
    "field: [Unknown Error]" in the output's words: a GPU that is lost or needs a reset shows there.
    `retired_pages_*` and `remapped_rows_*` count memory taken out of use; `*_repair_pending` and
    `unrepairable_memory` are newer drivers' verdicts on memory; `reset_required` is
    what older drivers print instead of `recovery_action`.
    """

    index: int | None = None
    name: str | None = None
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    memory_free_mib: int | None = None
    memory_reserved_mib: int | None = None
    uuid: str | None = None
    serial: str | None = None
    pci_address: str | None = None
    pci_device_id: str | None = None
    driver_version: str | None = None
    compute_capability: float | None = None
    architecture: str | None = None
    pcie_generation: int | None = None
    pcie_generation_max: int | None = None
    pcie_generation_card: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    persistence_mode: bool | None = None
    compute_mode: str | None = None
    ecc_mode: bool | None = None
    ecc_uncorrected: int | None = None
    sram_threshold_exceeded: bool | None = None
    channel_repair_pending: bool | None = None
    tpc_repair_pending: bool | None = None
    unrepairable_memory: bool | None = None
    remapped_rows_correctable: int | None = None
    remapped_rows_uncorrectable: int | None = None
    remapped_rows_pending: bool | None = None
    remapped_rows_failed: bool | None = None
    retired_pages_single_bit: int | None = None
    retired_pages_double_bit: int | None = None
    retired_pages_pending: bool | None = None
    reset_required: bool | None = None
    drain_and_reset_recommended: bool | None = None
    recovery_action: str | None = None
    fabric_state: str | None = None
    fabric_status: str | None = None
    fabric_health: str | None = None
    mig_mode: bool | None = None
    mig_devices: tuple[MigDevice, ...] = ()
    numa_node: int | None = None
    power_limit_w: float | None = None
    power_default_w: float | None = None
    power_min_w: float | None = None
    power_max_w: float | None = None
    temperature_c: int | None = None
    utilization_percent: int | None = None
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Process:
    """A process on a GPU; `name` is as printed, a path may be cut at its start by "..."."""

    gpu_uuid: str | None = None
    gpu_pci_address: str | None = None
    pid: int | None = None
    name: str | None = None
    used_memory_mib: int | None = None
    gpu_index: int | None = None
