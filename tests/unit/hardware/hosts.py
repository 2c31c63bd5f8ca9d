"""Reports of hosts for tests: what `ask.sh` prints, part by part, healthy unless said otherwise."""

from pathlib import Path

from roles.hardware import PART, HardwareReport
from roles.hardware.facts import HostReport as HostReportFact
from roles.host import parse_answers

DATA = Path(__file__).parents[2] / "data" / "gpu-outputs"
HEADER = (
    "index, name, uuid, serial, pci.bus_id, memory.total [MiB], memory.reserved [MiB], "
    "driver_version, persistence_mode, compute_cap, pcie.link.gen.current, pcie.link.gen.max, "
    "pcie.link.gen.gpumax, pcie.link.width.current, pcie.link.width.max, gpu_recovery_action, "
    "remapped_rows.pending, remapped_rows.failure, fabric.state, mig.mode.current"
)
FABRIC_MANAGER = "LoadState=loaded\nActiveState={}\nFabric Manager version is : {}"
SWITCHES = "\n".join(
    f"0000:0{n}:00.0 0x068000 0x10de 0x22a3 numa=0 driver=nvidia width=2/2" for n in range(5, 9)
)

AMD_STATIC = """[
 {"gpu": 0, "asic": {"market_name": "AMD Instinct MI300X"}, "bus": {"bdf": "0000:0c:00.0"},
  "vram": {"size": {"value": 196592, "unit": "MB"}}},
 {"gpu": 1, "asic": {"market_name": "AMD Instinct MI300X"}, "bus": {"bdf": "0000:22:00.0"},
  "vram": {"size": {"value": 196592, "unit": "MB"}}}
]"""
AMD_TOPOLOGY = """[
 {"gpu": 0, "bdf": "0000:0c:00.0", "links": [
  {"gpu": 0, "bdf": "0000:0c:00.0", "weight": 0, "link_type": "SELF", "num_hops": 0},
  {"gpu": 1, "bdf": "0000:22:00.0", "weight": 15, "link_type": "XGMI", "num_hops": 1}]},
 {"gpu": 1, "bdf": "0000:22:00.0", "links": [
  {"gpu": 0, "bdf": "0000:0c:00.0", "weight": 15, "link_type": "XGMI", "num_hops": 1},
  {"gpu": 1, "bdf": "0000:22:00.0", "weight": 0, "link_type": "SELF", "num_hops": 0}]}
]"""
NO_DRIVER = {
    "query": "",
    "query_status": "missing",
    "nvidia_loaded": "",
    "nvidia_installed": "",
    "nvidia_license": "",
}


def data(name: str) -> str:
    """One real output."""
    return (DATA / name).read_text()


def row(index: int, name: str = "NVIDIA L40S", **more: str) -> str:
    """A GPU's row under HEADER; `more` replaces fields by the name before the dot or blank."""
    fields = {
        "index": str(index),
        "name": name,
        "uuid": f"GPU-{index:08}-0000-0000-0000-000000000000",
        "serial": f"{index:013}",
        "bus": f"00000000:{index + 1:02X}:00.0",
        "total": "46068",
        "reserved": "603",
        "driver": "580.95.05",
        "persistence": "Enabled",
        "capability": "8.9",
        # A card at rest lowers its own generation.
        "gen_now": "1",
        "gen": "4",
        "card_gen": "4",
        "width": "16",
        "card_width": "16",
        "recovery": "None",
        "pending": "No",
        "failure": "No",
        "fabric": "N/A",
        "mig": "[N/A]",
    }
    return ", ".join((fields | more).values())


def query(*rows: str) -> str:
    """The answer to the GPU query."""
    return "\n".join([HEADER, *(rows or (row(0), row(1)))])


def output(**parts: str) -> list[str]:
    """The script's output; a part is given as its text, or as `NAME_status` (`-` written `_`)."""
    default = {
        "user": "1000",
        "sudo": "yes",
        "os": "ubuntu 24.04",
        "machine": "x86_64",
        "kernel": "6.8.0-60-generic",
        "memory": "MemTotal:       263850032 kB",
        "shm": "tmpfs 131925016 0 131925016 0% /dev/shm",
        "numa": "/sys/devices/system/node/node0\n/sys/devices/system/node/node1",
        "secure_boot": "SecureBoot disabled",
        "modules": "nvidia\nnvidia_uvm",
        "nvidia_loaded": "580.95.05",
        "nvidia_installed": "580.95.05",
        "nvidia_license": "Dual MIT/GPL",
        "fabric_manager": "LoadState=not-found\nActiveState=inactive",
        "pci": "",
        "query": query(),
        "list": "",
        "topo": "",
        "lspci": data("lspci/l40s-2x_dnnk-subsystem.txt"),
        "kernel_log": "",
        "owners": "",
        "end": "",
    }
    statuses = {name: text for name, text in parts.items() if name.endswith("_status")}
    texts = default | {name: text for name, text in parts.items() if name not in statuses}
    tools = {"query", "list", "topo", "topo_p2p", "apps", "version", "lspci", "details"}
    tools |= {"amd_smi", "amd_topology", "rocm_smi", "kernel_log", "acs"}
    lines = [f"@@@ {PART.name}"]
    for name, text in texts.items():
        lines += ["", f"@@ {name.replace('_', '-')}", *text.split("\n")]
        if name in tools:
            status = statuses.get(f"{name}_status", "0" if text else "missing")
            lines += ["", f"@@= {status}"]
    return lines


def sections(**parts: str) -> dict[str, str]:
    """The same as the parser of questions hands it on."""
    return parse_answers(output(**parts)).get(PART.name, {})


def process(**parts: str) -> HardwareReport:
    """The report of a host with these parts of its answer."""
    return HostReportFact().process(output(**parts))


def kinds(report: HardwareReport) -> list[str]:
    """The kinds of a report's faults."""
    return [fault.kind for fault in report.faults]
