#!/usr/bin/python3
"""nvidia-smi of the lab: the real one's words, from a recorded profile and live processes.

What a card is (its name, memory, links, every field of --query-gpu) comes from the profile; who
uses it comes from the simulated driver. Knows -L, --query-gpu, --query-compute-apps, -i, topo -m,
nvlink -s, --version, -q -x (of slices) and the plain table; as root also -pl, -mig, and mig with
-cgi and -C, -dci, -dgi. Anything else is an option that it does not recognize.

What is set is kept in two files: the power limit and the slices in SET, which a boot clears as it
does on a real card, and the MIG mode, which a real card keeps too, in KEPT.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
import time
from pathlib import Path

STATE = Path("/usr/lib/lab-gpu")
SOCKET = "/run/lab-gpu.sock"
SET = Path("/run/lab-gpu-set.json")
KEPT = Path("/var/lib/lab-gpu-kept.json")
NO_PERMISSION, NOT_DONE = 4, 255
INVALID, NO_DEVICES, NO_DRIVER, GPU_LOST, MISMATCH = 2, 6, 9, 15, 18
"""Exit statuses of the real tool."""
ALIASES = {
    "gpu_name": "name",
    "gpu_uuid": "uuid",
    "gpu_bus_id": "pci.bus_id",
    "gpu_serial": "serial",
    "clocks.gr": "clocks.current.graphics",
    "clocks.sm": "clocks.current.sm",
    "clocks.mem": "clocks.current.memory",
    "clocks_throttle_reasons.active": "clocks_event_reasons.active",
}
APP_ALIASES = {"used_memory": "used_gpu_memory", "name": "process_name"}
RESET_FIELDS = {"utilization.gpu", "utilization.memory", "temperature.gpu"}
"""What a GPU that wants a reset no longer answers."""
LEGEND = """
Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge
  NV#  = Connection traversing a bonded set of # NVLinks
"""  # noqa: E501


class SmiError(Exception):
    """What the tool prints, and its exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.text, self.status = text, status


class Gpus:
    """The host's GPUs: recorded, live and broken."""

    def __init__(self) -> None:
        self.profile = json.loads((STATE / "profile.json").read_text())
        faults = json.loads((STATE / "faults.json").read_text())
        self.lost: list[int] = faults.get("lost", [])
        self.recovery: dict[str, str] = faults.get("recovery", {})
        self.foreign: list[dict] = faults.get("foreign", [])
        if "mismatch" in faults:
            text = "Failed to initialize NVML: Driver/library version mismatch\n"
            raise SmiError(f"{text}NVML library version: {faults['mismatch']}\n", MISMATCH)
        self.status = 0
        self._live: dict | None = None
        self.set: dict = read_json(SET)
        self.kept: dict = read_json(KEPT)

    def fields(self, index: int) -> dict[str, str]:
        """The recorded fields of a GPU: those of all cards, and what differs on this one."""
        return self.profile["fields"] | self.profile["gpus"][index].get("fields", {})

    def field(self, name: str, index: int = 0) -> str:
        """A recorded field of a GPU, by its name in the header."""
        return self.fields(index)[name]

    def bus_id(self, index: int) -> str:
        return self.profile["gpus"][index]["bus_id"]

    def uuid(self, index: int) -> str:
        return self.profile["gpus"][index]["uuid"]

    def chosen(self, selector: str | None) -> list[int]:
        """The GPUs that -i names (all without it), less the lost ones, which it complains about."""
        every = range(len(self.profile["gpus"]))
        picked = list(every)
        if selector is not None:
            wanted = [part.strip().upper() for part in selector.split(",")]
            picked = [i for i in every if any(self._is(i, part) for part in wanted)]
            if len(picked) < len(wanted):
                raise SmiError("No devices were found\n", NO_DEVICES)
        for index in picked:
            if index in self.lost:
                self._complain(index)
        return [i for i in picked if i not in self.lost]

    def _is(self, index: int, wanted: str) -> bool:
        bus = self.bus_id(index)
        return wanted in (str(index), bus, bus[4:], bus[9:], self.uuid(index).upper())

    def _complain(self, index: int) -> None:
        where = f"GPU{index}: {self.bus_id(index)[4:]}"
        text = "GPU is lost.  Reboot the system to recover this GPU"
        print(f"Unable to determine the device handle for {where}: {text}")
        self.status = GPU_LOST

    def live(self, wanted: str = "all") -> dict:
        """What the driver sees now: processes, and utilization if asked for `all`."""
        if self._live is None:
            try:
                with socket.socket(socket.AF_UNIX) as link:
                    link.connect(SOCKET)
                    link.sendall(wanted.encode())
                    text = b"".join(iter(lambda: link.recv(65536), b""))
                live: dict = json.loads(text)
            except (OSError, ValueError):
                raise SmiError(
                    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
                    "Make sure that the latest NVIDIA driver is installed and running.\n\n",
                    NO_DRIVER,
                ) from None
            live["processes"] += self.foreign
            self._live = live
        return self._live

    def processes(self, wanted: str = "all") -> list[dict]:
        """The processes that hold GPUs, in the GPUs' order."""
        held = [p for p in self.live(wanted)["processes"] if p["gpu"] not in self.lost]
        return sorted(held, key=lambda process: process["gpu"])

    def used_mib(self, index: int) -> int:
        held = sum(p["mib"] for p in self.processes() if p["gpu"] == index)
        reserved = self.mib("memory.reserved [MiB]", index)
        most = self.mib("memory.total [MiB]", index) - reserved
        return min(self.profile["idle"]["memory_mib"] + held, most)

    def mib(self, field: str, index: int) -> int:
        return int(self.field(field, index).split()[0])

    def row(self, index: int) -> dict[str, str]:
        """Every field of a GPU, by its name in the header."""
        busy = self.live()["utilization"][index]
        used, total = self.used_mib(index), self.mib("memory.total [MiB]", index)
        idle = self.profile["idle"]
        limit = self.power_limit(index)
        power = f"{idle['power_w'] + busy / 100 * (0.8 * limit - idle['power_w']):.2f} W"
        gpu, bus = self.profile["gpus"][index], self.bus_id(index)
        live = {
            "timestamp": timestamp(),
            "index": str(index),
            "count": str(len(self.profile["gpus"]) - len(self.lost)),
            "uuid": gpu["uuid"],
            "serial": gpu["serial"],
            "pci.bus_id": bus,
            "pci.domain": f"0x{bus[4:8]}",
            "pci.bus": f"0x{bus[9:11]}",
            "pci.device": f"0x{bus[12:14]}",
            "memory.used [MiB]": f"{used} MiB",
            "memory.free [MiB]": f"{total - self.mib('memory.reserved [MiB]', index) - used} MiB",
            "utilization.gpu [%]": f"{busy} %",
            "utilization.memory [%]": f"{busy // 3} %",
            "temperature.gpu": str(idle["temperature"] + round(busy * 0.35)),
            "pstate": "P0" if busy or used > CONTEXT_MIB else "P8",
            "gpu_recovery_action": self.recovery.get(str(index), "None"),
            "power.limit [W]": f"{self.power_limit(index):.2f} W",
            "enforced.power.limit [W]": f"{self.power_limit(index):.2f} W",
        }
        if str(index) in self.kept:
            live |= {
                f"mig.mode.{when}": "Enabled" if self.mig_mode(index, when) else "Disabled"
                for when in ("current", "pending")
            }
        live |= {f"power.draw{kind} [W]": power for kind in ("", ".average", ".instant")}
        row = self.fields(index) | live
        if row["gpu_recovery_action"] == "Reset":
            row |= {name: "[GPU requires reset]" for name in row if bare(name) in RESET_FIELDS}
        return row

    def power_limit(self, index: int) -> float:
        """What was set, in watts, else what the profile says."""
        printed = self.set.get("power", {}).get(str(index))
        return printed if printed is not None else watts(self.field("power.limit [W]", index))

    def can_slice(self) -> bool:
        """Whether the card knows MIG: others have no such mode, neither on nor off."""
        return self.profile["fields"].get("mig.mode.current") in ("Enabled", "Disabled")

    def mig_mode(self, index: int, when: str = "current") -> bool:
        """The MIG mode now, or after the next reset (`pending`)."""
        printed = self.kept.get(str(index), {}).get(when)
        return (
            self.profile["fields"].get(f"mig.mode.{when}") == "Enabled"
            if printed is None
            else printed
        )

    def slices(self, index: int) -> list[dict]:
        """The slices of a GPU in MIG mode, in the order of their instances."""
        if not self.mig_mode(index):
            return []
        made = self.set.get("slices", {}).get(str(index), [])
        made = [one for one in made if not one.get("bare")]
        return sorted(made, key=lambda one: one["instance"])

    def held_by(self, index: int) -> list[dict]:
        return [process for process in self.processes("processes") if process["gpu"] == index]


def watts(cell: str) -> float:
    return float(cell.split()[0])


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def write_json(path: Path, data: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(data))
    os.replace(new, path)


CONTEXT_MIB = 100
"""More than a card without processes has in use."""


def bare(header: str) -> str:
    """A field's name without its unit."""
    return header.split(" [")[0]


def timestamp() -> str:
    now = time.time()
    return f"{time.strftime('%Y/%m/%d %H:%M:%S', time.localtime(now))}.{int(now % 1 * 1000):03}"


def pick(requested: str, known: dict[str, str], aliases: dict[str, str]) -> list[str]:
    """The headers of the requested fields."""
    by_name = {bare(header): header for header in known}
    headers = []
    for name in requested.split(","):
        name = name.strip()
        canonical = aliases.get(name, name)
        if canonical not in by_name:
            raise SmiError(f'Field "{name}" is not a valid field to query.\n\n', INVALID)
        headers.append(by_name[canonical])
    return headers


def print_csv(headers: list[str], rows: list[dict[str, str]], layout: str) -> None:
    """Print rows as the real tool does; `nounits` leaves the header's units."""
    options = layout.split(",")
    if "noheader" not in options:
        print(", ".join(headers))
    for row in rows:
        cells = [row[header] for header in headers]
        if "nounits" in options:
            cells = [re.sub(r"^(-?[0-9.]+) (MiB|W|%|MHz|us)$", r"\1", cell) for cell in cells]
        print(", ".join(cells))


def query_gpu(gpus: Gpus, fields: str, layout: str, selector: str | None) -> None:
    """--query-gpu=FIELDS --format=csv…"""
    known = gpus.profile["fields"] | dict.fromkeys(LIVE_HEADERS, "")
    headers = pick(fields, known, ALIASES)
    print_csv(headers, [gpus.row(index) for index in gpus.chosen(selector)], layout)


LIVE_HEADERS = [
    *("timestamp", "index", "count", "uuid", "serial", "pci.bus_id", "pci.domain", "pci.bus"),
    *("pci.device", "memory.used [MiB]", "memory.free [MiB]", "utilization.gpu [%]"),
    *("utilization.memory [%]", "temperature.gpu", "pstate", "gpu_recovery_action"),
    *("power.draw [W]", "power.draw.average [W]", "power.draw.instant [W]"),
]


def query_apps(gpus: Gpus, fields: str, layout: str, selector: str | None) -> None:
    """--query-compute-apps=FIELDS --format=csv…"""
    chosen = gpus.chosen(selector)
    rows = [
        {
            "timestamp": timestamp(),
            "gpu_name": gpus.field("name", process["gpu"]),
            "gpu_bus_id": gpus.bus_id(process["gpu"]),
            "gpu_serial": gpus.profile["gpus"][process["gpu"]]["serial"],
            "gpu_uuid": gpus.uuid(process["gpu"]),
            "pid": str(process["pid"]),
            "process_name": process["name"],
            "used_gpu_memory [MiB]": f"{process['mib']} MiB",
        }
        for process in gpus.processes("processes")
        if process["gpu"] in chosen
    ]
    names = ["timestamp", "gpu_name", "gpu_bus_id", "gpu_serial", "gpu_uuid", "pid"]
    known = dict.fromkeys([*names, "process_name", "used_gpu_memory [MiB]"], "")
    print_csv(pick(fields, known, APP_ALIASES), rows, layout)


def topology(gpus: Gpus) -> None:
    """topo -m, with the escape codes that the real one prints even into a pipe."""
    every = range(len(gpus.profile["gpus"]))
    if len(gpus.chosen(None)) < len(every):
        return
    columns = [*(f"GPU{i}" for i in every), "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"]
    print("\t\x1b[4m" + "\t".join(columns) + "\x1b[0m")
    place = [gpus.profile["cpu_affinity"], gpus.profile["numa_node"], "", "N/A"]
    for i in every:
        links = [" X " if link == "X" else link for link in gpus.profile["links"][i]]
        print("\t".join([f"GPU{i}", *links, *place]))
    print(LEGEND, end="")


def listing(gpus: Gpus, selector: str | None, nvlink: bool = False) -> None:
    """-L, and nvlink -s of cards that have none."""
    for index in gpus.chosen(selector):
        print(f"GPU {index}: {gpus.field('name', index)} (UUID: {gpus.uuid(index)})")
        if nvlink:
            print("Device does not have or support Nvlink")
        for number, one in enumerate([] if nvlink else gpus.slices(index)):
            profile, own = one["profile"], slice_uuid(gpus, index, one)
            print(f"  MIG {profile:<12}Device {number:>2}: (UUID: {own})")


def slice_uuid(gpus: Gpus, index: int, one: dict) -> str:
    """The same for the same place on the same GPU, as the real ones are."""
    text = hashlib.sha256(f"{gpus.uuid(index)}/{one['instance']}".encode()).hexdigest()
    return "MIG-" + "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:32]])


def set_power(gpus: Gpus, wanted: str, selector: str | None) -> None:
    """-pl W"""
    chosen = gpus.chosen(selector)
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", wanted):
        raise SmiError(f"Invalid power limit specified: {wanted}\n", INVALID)
    power = gpus.set.setdefault("power", {})
    for index in chosen:
        bus, limit = gpus.bus_id(index), float(wanted)
        if os.geteuid():
            raise SmiError(denied(f"Unable to set power limit for GPU {bus}"), NO_PERMISSION)
        least, most = (watts(gpus.field(f"power.{end}_limit [W]", index)) for end in ("min", "max"))
        if not least <= limit <= most:
            raise SmiError(
                f"Provided power limit {limit:.2f} W is not a valid power limit which should be "
                f"between {least:.2f} W and {most:.2f} W for GPU {bus}\n"
                "Terminating early due to previous errors.\n",
                INVALID,
            )
        before = gpus.power_limit(index)
        power[str(index)] = limit
        print(f"Power limit for GPU {bus} was set to {limit:.2f} W from {before:.2f} W.")
    write_json(SET, gpus.set)
    print("All done.")


def denied(what: str) -> str:
    return f"{what}: Insufficient Permissions\nTerminating early due to previous errors.\n"


def set_mig(gpus: Gpus, wanted: str, selector: str | None) -> None:
    """-mig 0|1: at once, unless processes use the GPU or the profile says `mig_needs_reset`."""
    if wanted not in ("0", "1"):
        raise SmiError(f"Invalid MIG mode specified: {wanted}\n", INVALID)
    verb = "enable" if wanted == "1" else "disable"
    for index in gpus.chosen(selector):
        bus, mode = gpus.bus_id(index), {"pending": wanted == "1"}
        if os.geteuid():
            raise SmiError(denied(f"Unable to {verb} MIG Mode for GPU {bus}"), NO_PERMISSION)
        if not gpus.can_slice():
            print(f"Unable to {verb} MIG Mode for GPU {bus}: Not Supported")
            print("Treating as warning and moving on.")
            continue
        waits = f"Warning: MIG mode is in pending {verb} state for GPU {bus}:"
        if gpus.held_by(index):
            print(f"{waits}In use by another client")
            print(IN_USE.format(bus=bus))
            mode["current"] = gpus.mig_mode(index)
        elif gpus.profile.get("mig_needs_reset") and gpus.mig_mode(index) != mode["pending"]:
            print(f"{waits}Not Supported")
            again = "Reboot the system or try nvidia-smi --gpu-reset to make MIG mode effective on"
            print(f"{again} GPU {bus}")
            mode["current"] = gpus.mig_mode(index)
        else:
            print(f"{verb.capitalize()}d MIG Mode for GPU {bus}")
            mode["current"] = mode["pending"]
            gpus.set.get("slices", {}).pop(str(index), None)
        gpus.kept[str(index)] = mode
    write_json(KEPT, gpus.kept)
    write_json(SET, gpus.set)
    print("All done.")


IN_USE = (
    "{bus} is currently being used by one or more other processes (e.g. CUDA application or a "
    "monitoring application such as another instance of nvidia-smi). Please first kill all "
    "processes using the device and retry the command or reboot the system to make MIG mode "
    "effective."
)
# Profile number, first instance and places of each size, by its slices of compute and of memory.
SIZES = {
    (1, 1): (19, 7, range(7), 1),
    (1, 2): (15, 3, range(0, 8, 2), 2),
    (2, 2): (14, 3, range(0, 6, 2), 2),
    (3, 4): (9, 1, range(0, 8, 4), 4),
    (4, 4): (5, 1, range(1), 4),
    (7, 8): (0, 0, range(1), 8),
}


def mig(gpus: Gpus, options: list[str], selector: str | None) -> None:
    """mig [-i N] -cgi P,P -C | -dci | -dgi"""
    chosen = [index for index in gpus.chosen(selector) if gpus.mig_mode(index)]
    if not chosen:
        raise SmiError("No MIG-enabled devices found.\n", NO_DEVICES)
    if os.geteuid():
        raise SmiError("Insufficient Permissions\n", NO_PERMISSION)
    match options:
        case ["-cgi", profiles, "-C"]:
            for index in chosen:
                create(gpus, index, profiles.split(","))
        case ["-dci"] | ["-dgi"]:
            for index in chosen:
                destroy(gpus, index, whole=options == ["-dgi"])
        case _:
            raise unknown(options[0] if options else "mig")
    write_json(SET, gpus.set)


def create(gpus: Gpus, index: int, profiles: list[str]) -> None:
    """Make slices, each at the first place that is free."""
    made = gpus.set.setdefault("slices", {}).setdefault(str(index), [])
    memory = gpus.mib("memory.total [MiB]", index) / 1024
    for profile in profiles:
        match = re.fullmatch(r"([1-7])g\.([0-9]+)gb", profile)
        compute = int(match[1]) if match else 0
        parts = max(1, round(8 * int(match[2]) / memory)) if match else 0
        size = SIZES.get((compute, parts))
        if size is None:
            raise SmiError(
                f"Unable to create a GPU instance on GPU {index:>2} using profile {profile}: "
                "Invalid Argument\nFailed to create GPU instances: Invalid Argument\n",
                NOT_DONE,
            )
        number, first, starts, length = size
        taken = {at for one in made for at in range(one["start"], one["start"] + one["length"])}
        free = [s for s in starts if not taken & set(range(s, s + length))]
        if not free or compute + sum(int(one["profile"][0]) for one in made) > 7:
            raise SmiError(
                f"Unable to create a GPU instance on GPU {index:>2} using profile {number}: "
                "Insufficient Resources\nFailed to create GPU instances: Insufficient Resources\n",
                NOT_DONE,
            )
        instance = first + list(starts).index(free[0])
        one = {"profile": profile, "instance": instance, "number": number}
        one |= {"start": free[0], "length": length}
        made.append(one)
        # The real one makes each at once, and leaves what it made where a later one fails.
        write_json(SET, gpus.set)
        where = f"on GPU {index:>2}"
        print(
            f"Successfully created GPU instance ID {instance:>2} {where} using profile "
            f"MIG {profile} (ID {number:>2})"
        )
        print(
            f"Successfully created compute instance ID  0 {where} GPU instance ID {instance:>2} "
            f"using profile MIG {profile} (ID {compute - 1:>2})"
        )


def destroy(gpus: Gpus, index: int, whole: bool) -> None:
    """Destroy a GPU's compute instances, or the GPU instances that have none left."""
    made = gpus.set.get("slices", {}).get(str(index), [])
    there = [one for one in made if whole or not one.get("bare")]
    if not there:
        kind = "GPU" if whole else "compute"
        raise SmiError(f"No {kind} instances found: Not Found\n", NO_DEVICES)
    for one in list(there):
        where = f"from GPU {index:>2}"
        what = f"GPU instance ID {one['instance']:>2} {where}"
        if not whole:
            what = f"compute instance ID  0 {where} GPU instance ID {one['instance']:>2}"
        if gpus.held_by(index) or (whole and not one.get("bare")):
            kind = "GPU" if whole else "compute"
            raise SmiError(
                f"Unable to destroy {what}: In use by another client\n"
                f"Failed to destroy {kind} instances: In use by another client\n",
                NOT_DONE,
            )
        print(f"Successfully destroyed {what}")
        if whole:
            made.remove(one)
        else:
            one["bare"] = True


def xml(gpus: Gpus, selector: str | None) -> None:
    """-q -x, as far as slices are concerned."""
    chosen = gpus.chosen(selector)
    print('<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">')
    print(f"<nvidia_smi_log>\n\t<driver_version>{gpus.field('driver_version')}</driver_version>")
    print(f"\t<cuda_version>{gpus.profile['cuda_version']}</cuda_version>")
    print(f"\t<attached_gpus>{len(chosen)}</attached_gpus>")
    for index in chosen:
        current = "Enabled" if gpus.mig_mode(index) else "Disabled"
        pending = "Enabled" if gpus.mig_mode(index, "pending") else "Disabled"
        if not gpus.can_slice():
            current = pending = "N/A"
        print(f'\t<gpu id="{gpus.bus_id(index)}">')
        print(f"\t\t<product_name>{gpus.field('name', index)}</product_name>")
        print(f"\t\t<mig_mode>\n\t\t\t<current_mig>{current}</current_mig>")
        print(f"\t\t\t<pending_mig>{pending}</pending_mig>\n\t\t</mig_mode>\n\t\t<mig_devices>")
        for number, one in enumerate(gpus.slices(index)):
            xml_slice(gpus.mib("memory.total [MiB]", index), number, one)
        print("" if gpus.slices(index) else "\t\t\tNone")
        print(f"\t\t</mig_devices>\n\t\t<uuid>{gpus.uuid(index)}</uuid>\n\t</gpu>")
    print("</nvidia_smi_log>")


def xml_slice(memory_mib: int, number: int, one: dict) -> None:
    """One slice; an eighth of the card's memory keeps some 3 % for itself."""
    total = int(memory_mib * one["length"] / 8 * 0.97)
    print(f"\t\t\t<mig_device>\n\t\t\t\t<index>{number}</index>")
    print(f"\t\t\t\t<gpu_instance_id>{one['instance']}</gpu_instance_id>")
    print("\t\t\t\t<compute_instance_id>0</compute_instance_id>\n\t\t\t\t<fb_memory_usage>")
    print(f"\t\t\t\t\t<total>{total} MiB</total>\n\t\t\t\t\t<reserved>0 MiB</reserved>")
    print(f"\t\t\t\t\t<used>0 MiB</used>\n\t\t\t\t\t<free>{total} MiB</free>")
    print("\t\t\t\t</fb_memory_usage>\n\t\t\t</mig_device>")


def version(gpus: Gpus) -> None:
    """--version"""
    driver = gpus.field("driver_version")
    for label in ("NVIDIA-SMI version", "NVML version", "DRIVER version"):
        print(f"{label:<20}: {driver}")
    print(f"{'CUDA Version':<20}: {gpus.profile['cuda_version']}")


TABLE_HEAD = """\
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |"""


def table(gpus: Gpus, selector: str | None) -> None:
    """The plain table."""
    gpus.live()
    chosen = gpus.chosen(selector)
    driver = gpus.field("driver_version")
    double = f"+{'-' * 41}+{'-' * 24}+{'-' * 22}+"
    print(time.strftime("%a %b %e %H:%M:%S %Y       "))
    print(f"+{'-' * 89}+")
    versions = f"Driver Version: {driver:<15}CUDA Version: {gpus.profile['cuda_version']:<9}"
    print(f"| NVIDIA-SMI {driver:<23}{versions}|")
    print(double)
    print(TABLE_HEAD)
    print(f"|{'=' * 41}+{'=' * 24}+{'=' * 22}|")
    for index in chosen:
        print("\n".join(card(gpus.row(index))))
        print(double)
    print(f"\n+{'-' * 89}+\n| Processes:{' ' * 78}|")
    print(f"|  GPU   GI   CI{' ' * 14}PID   Type   Process name{' ' * 24}GPU Memory |")
    print(f"|        ID   ID{' ' * 63}Usage      |\n|{'=' * 89}|")
    held = [process for process in gpus.processes() if process["gpu"] in chosen]
    for p in held:
        left = f"{p['gpu']:>4}   N/A  N/A {p['pid']:>15}      C   {p['name'][:38]:<38}"
        print(f"| {left}{str(p['mib']) + 'MiB':>8} |")
    if not held:
        print(f"|  No running processes found{' ' * 61}|")
    print(f"+{'-' * 89}+")


def card(row: dict[str, str]) -> list[str]:
    """The three lines of a card in the plain table."""
    name = row["name"] if len(row["name"]) <= 26 else row["name"][:23] + "..."
    persistence = "On" if row["persistence_mode"] == "Enabled" else "Off"
    display = "On" if row["display_active"] == "Enabled" else "Off"
    ecc = "0" if row["ecc.mode.current"] == "Enabled" else "N/A"
    fan = row["fan.speed [%]"].replace(" ", "").replace("[N/A]", "N/A")
    watts = [f"{float(row[f'power.{kind} [W]'].split()[0]):.0f}W" for kind in ("draw", "limit")]
    used, total = (row[f"memory.{kind} [MiB]"].replace(" ", "") for kind in ("used", "total"))
    busy = row["utilization.gpu [%]"].replace(" ", "")
    degrees = f"{row['temperature.gpu']:>3}C "
    if row["gpu_recovery_action"] == "Reset":
        busy, degrees = "ERR!", " ERR!"
    heat = f"{fan:>3}  {degrees}   {row['pstate']:<3}"
    return [
        f"| {row['index']:>3}  {name:<26} {persistence:>8} |   {row['pci.bus_id']} {display:>3} |"
        f" {ecc:>20} |",
        f"| {heat} {watts[0]:>14} / {watts[1]:>5} | {used:>10} / {total:>9} | {busy:>7} "
        f"{row['compute_mode']:>12} |",
        f"| {'':39} | {'':22} | {'N/A':>20} |",
    ]


def run(arguments: list[str]) -> int:
    """Do what the arguments ask; the exit status."""
    layout = selector = mode = fields = None
    mig_options: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option, given, value = argument.partition("=")
        if option in ("--query-gpu", "--query-compute-apps") and given:
            mode, fields = option, value
        elif option == "--format" and given and value.split(",")[0] == "csv":
            layout = value
        elif option in ("-i", "--id"):
            selector = value if given else next(rest, "")
        elif option in ("-L", "--list-gpus", "--version") and not given:
            mode = option
        elif argument in ("-pl", "-mig") and mode is None:
            mode, fields = argument, next(rest, "")
        elif argument == "mig" and mode is None:
            mode = argument
        elif mode == "mig":
            mig_options.append(argument)
        elif (argument, mode) in (("-q", None), ("-x", "-q")):
            mode = f"{mode or ''} {argument}".strip()
        elif argument in ("topo", "nvlink") and mode is None:
            mode = f"{argument} {next(rest, '')}"
        else:
            raise unknown(argument)
    gpus = Gpus()
    match mode:
        case None:
            table(gpus, selector)
        case "-L" | "--list-gpus":
            listing(gpus, selector)
        case "--version":
            version(gpus)
        case "topo -m" | "topo --matrix":
            topology(gpus)
        case "nvlink -s" | "nvlink --status":
            listing(gpus, selector, nvlink=True)
        case "-pl":
            set_power(gpus, fields or "", selector)
        case "-mig":
            set_mig(gpus, fields or "", selector)
        case "mig":
            mig(gpus, mig_options, selector)
        case "-q -x":
            xml(gpus, selector)
        case "--query-gpu" | "--query-compute-apps" if layout:
            ask = query_gpu if mode == "--query-gpu" else query_apps
            ask(gpus, fields or "", layout, selector)
        case _:
            raise unknown(mode)
    return gpus.status


def unknown(option: str) -> SmiError:
    """The real tool's answer to an option that it does not know."""
    return SmiError(
        f"ERROR: Option {option} is not recognized. Please run 'nvidia-smi -h'.\n\n", INVALID
    )


def main() -> int:
    """Run, and print a failure where the real tool prints it: on standard output."""
    try:
        return run(sys.argv[1:])
    except SmiError as failure:
        print(failure.text, end="")
        return failure.status


if __name__ == "__main__":
    sys.exit(main())
