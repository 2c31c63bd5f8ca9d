"""Maps the values of `nvidia-smi -q`, as text or XML, to fields of a GPU's record.

The text's headings and the XML's tags name the same tree; both are brought to one spelling.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from roles.hardware.outputs import values
from roles.hardware.outputs.reading import Printed, gpu_record
from roles.hardware.outputs.record import GpuRecord, MigDevice, Process

Path = tuple[str, ...]


@dataclass(frozen=True)
class Leaf:
    """A value with the path of its headings, in lower case."""

    path: Path
    text: str


# Ends of paths, of the text and of the XML. If two match, the longer one counts.
_FIELDS: dict[Path, str] = {
    ("product name",): "name",
    ("product_name",): "name",
    ("product architecture",): "architecture",
    ("product_architecture",): "architecture",
    ("persistence mode",): "persistence_mode",
    ("persistence_mode",): "persistence_mode",
    ("mig mode", "current"): "mig_mode",
    ("mig_mode", "current_mig"): "mig_mode",
    ("serial number",): "serial",
    ("serial",): "serial",
    ("gpu uuid",): "uuid",
    ("uuid",): "uuid",
    ("pci", "bus id"): "pci_address",
    ("pci", "pci_bus_id"): "pci_address",
    ("pci", "device id"): "pci_device_id",
    ("pci", "pci_device_id"): "pci_device_id",
    ("pcie generation", "max"): "pcie_generation_max",
    ("pcie generation", "current"): "pcie_generation",
    ("pcie generation", "device max"): "pcie_generation_card",
    ("pcie_gen", "max_link_gen"): "pcie_generation_max",
    ("pcie_gen", "max_device_link_gen"): "pcie_generation_card",
    ("pcie_gen", "current_link_gen"): "pcie_generation",
    ("link width", "max"): "pcie_width_max",
    ("link width", "current"): "pcie_width",
    ("link_widths", "max_link_width"): "pcie_width_max",
    ("link_widths", "current_link_width"): "pcie_width",
    ("fb memory usage", "total"): "memory_total_mib",
    ("fb memory usage", "reserved"): "memory_reserved_mib",
    ("fb memory usage", "used"): "memory_used_mib",
    ("fb memory usage", "free"): "memory_free_mib",
    ("fb_memory_usage", "total"): "memory_total_mib",
    ("fb_memory_usage", "reserved"): "memory_reserved_mib",
    ("fb_memory_usage", "used"): "memory_used_mib",
    ("fb_memory_usage", "free"): "memory_free_mib",
    ("compute mode",): "compute_mode",
    ("compute_mode",): "compute_mode",
    ("utilization", "gpu"): "utilization_percent",
    ("utilization", "gpu_util"): "utilization_percent",
    ("ecc mode", "current"): "ecc_mode",
    ("ecc_mode", "current_ecc"): "ecc_mode",
    ("aggregate", "sram threshold exceeded"): "sram_threshold_exceeded",
    ("aggregate", "sram_threshold_exceeded"): "sram_threshold_exceeded",
    ("ecc errors", "channel repair pending"): "channel_repair_pending",
    ("ecc errors", "tpc repair pending"): "tpc_repair_pending",
    ("ecc errors", "unrepairable memory"): "unrepairable_memory",
    ("ecc_errors", "channel_repair_pending"): "channel_repair_pending",
    ("ecc_errors", "tpc_repair_pending"): "tpc_repair_pending",
    ("ecc_errors", "unrepairable_memory"): "unrepairable_memory",
    ("retired pages", "single bit ecc"): "retired_pages_single_bit",
    ("retired pages", "double bit ecc"): "retired_pages_double_bit",
    ("retired pages", "pending page blacklist"): "retired_pages_pending",
    ("retired pages", "pending"): "retired_pages_pending",
    ("multiple_single_bit_retirement", "retired_count"): "retired_pages_single_bit",
    ("double_bit_retirement", "retired_count"): "retired_pages_double_bit",
    ("retired_pages", "pending_blacklist"): "retired_pages_pending",
    ("retired_pages", "pending_retirement"): "retired_pages_pending",
    ("remapped rows", "correctable error"): "remapped_rows_correctable",
    ("remapped rows", "uncorrectable error"): "remapped_rows_uncorrectable",
    ("remapped rows", "pending"): "remapped_rows_pending",
    ("remapped rows", "remapping failure occurred"): "remapped_rows_failed",
    ("remapped_rows", "remapped_row_corr"): "remapped_rows_correctable",
    ("remapped_rows", "remapped_row_unc"): "remapped_rows_uncorrectable",
    ("remapped_rows", "remapped_row_pending"): "remapped_rows_pending",
    ("remapped_rows", "remapped_row_failure"): "remapped_rows_failed",
    ("temperature", "gpu current temp"): "temperature_c",
    ("temperature", "gpu"): "temperature_c",
    ("temperature", "gpu_temp"): "temperature_c",
    ("power readings", "power limit"): "power_limit_w",
    ("power_readings", "power_limit"): "power_limit_w",
    ("gpu recovery action",): "recovery_action",
    ("gpu_recovery_action",): "recovery_action",
    ("gpu reset status", "reset required"): "reset_required",
    ("gpu reset status", "drain and reset recommended"): "drain_and_reset_recommended",
    ("gpu_reset_status", "reset_required"): "reset_required",
    ("gpu_reset_status", "drain_and_reset_recommended"): "drain_and_reset_recommended",
    ("fabric", "state"): "fabric_state",
    ("fabric", "status"): "fabric_status",
    ("fabric", "health", "summary"): "fabric_health",
}
_UNCORRECTED = {
    "sram uncorrectable",
    "sram uncorrectable parity",
    "sram uncorrectable sec-ded",
    "dram uncorrectable",
    "sram_uncorrectable",
    "sram_uncorrectable_parity",
    "sram_uncorrectable_secded",
    "dram_uncorrectable",
}
_POWER_LIMITS = {
    ("gpu power readings", "current power limit"),
    ("gpu_power_readings", "current_power_limit"),
}
_NO_VALUES = {"processes", "accounted processes", "accounted_processes", "process_info"}
_MIG = {"mig device", "mig_device"}


def record_of(
    leaves: Sequence[Leaf], mig_devices: tuple[MigDevice, ...], **known: object
) -> GpuRecord:
    """One GPU's record from its leaves; those of its processes and MIG devices are left out."""
    own = [leaf for leaf in leaves if not set(leaf.path) & (_NO_VALUES | _MIG)]
    printed = (Printed(_field(leaf.path), "/".join(leaf.path), leaf.text) for leaf in own)
    return gpu_record(printed, mig_devices, **known)


def describes_gpu(leaves: Iterable[Leaf]) -> bool:
    """Whether any leaf belongs to a GPU's section."""
    return any(_field(leaf.path) is not None for leaf in leaves)


def mig_device(leaves: Sequence[Leaf]) -> MigDevice | None:
    """A MIG device from its leaves; None without an index."""
    device = MigDevice(index=-1)
    for leaf in leaves:
        key, parent = leaf.path[-1], leaf.path[-2] if len(leaf.path) > 1 else ""
        name = key.replace(" ", "_")
        if name in ("index", "gpu_instance_id", "compute_instance_id"):
            value = values.whole(leaf.text)
            device = device if value is None else replace(device, **{name: value})
        elif name in ("uuid", "mig_uuid") and not values.is_absent(leaf.text):
            device = replace(device, uuid=leaf.text)
        # Newer drivers call it "Shared FB Memory Usage": compute instances have it in common.
        elif key == "total" and parent.replace(" ", "_").endswith("fb_memory_usage"):
            device = replace(device, memory_total_mib=values.mebibytes(leaf.text))
    return None if device.index < 0 else device


def process(leaves: Sequence[Leaf], gpu: GpuRecord) -> Process | None:
    """A process from its leaves; None without a process id."""
    fields = {leaf.path[-1].replace("_", " "): leaf.text for leaf in leaves}
    pid = values.whole(fields.get("process id", fields.get("pid", "")))
    name = fields.get("process name", fields.get("name", ""))
    memory = fields.get("used gpu memory", fields.get("used memory", ""))
    if pid is None:
        return None
    return Process(
        gpu_uuid=gpu.uuid,
        gpu_pci_address=gpu.pci_address,
        pid=pid,
        name=None if values.is_absent(name) or values.is_failure(name) else name,
        used_memory_mib=values.mebibytes(memory),
        gpu_index=gpu.index,
    )


def _field(path: Path) -> str | None:
    scope = next((it for it in ("volatile", "aggregate") if it in path), None)
    if scope is not None and "mig device" not in path and len(path) > 1:
        double_bit = path[-2] in ("double bit", "double_bit") and path[-1] == "total"
        if double_bit or (path[-1] in _UNCORRECTED and path[-2] == scope):
            return f"ecc_{scope}"
    # Driver 610 put one more heading between the two, "GPU Ceiling Power Limit".
    if (path[:1] + path[-1:]) in _POWER_LIMITS:
        return "power_limit_w"
    for length in (3, 2, 1):
        field = _FIELDS.get(path[-length:]) if len(path) >= length else None
        # A single name is a GPU's field only directly in the GPU's section.
        if field is not None and (length > 1 or len(path) == 1):
            return field
    return None
