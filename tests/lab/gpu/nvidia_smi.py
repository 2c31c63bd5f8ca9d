#!/usr/bin/python3
"""nvidia-smi of the lab: the real one's words, from a recorded profile and live processes.

What a card is (its name, memory, links, every field of --query-gpu) comes from the profile; who
uses it comes from the simulated driver. Knows -L, --query-gpu, --query-compute-apps, -i, topo -m,
nvlink -s, --version and the plain table; anything else is an option that it does not recognize.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from pathlib import Path

STATE = Path("/usr/lib/lab-gpu")
SOCKET = "/run/lab-gpu.sock"
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

    def field(self, name: str) -> str:
        """A recorded field, by its name in the header."""
        return self.profile["fields"][name]

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
        reserved = self.mib("memory.reserved [MiB]")
        most = self.mib("memory.total [MiB]") - reserved
        return min(self.profile["idle"]["memory_mib"] + held, most)

    def mib(self, field: str) -> int:
        return int(self.field(field).split()[0])

    def row(self, index: int) -> dict[str, str]:
        """Every field of a GPU, by its name in the header."""
        busy = self.live()["utilization"][index]
        used, total = self.used_mib(index), self.mib("memory.total [MiB]")
        idle = self.profile["idle"]
        limit = float(self.field("power.limit [W]").split()[0])
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
            "memory.free [MiB]": f"{total - self.mib('memory.reserved [MiB]') - used} MiB",
            "utilization.gpu [%]": f"{busy} %",
            "utilization.memory [%]": f"{busy // 3} %",
            "temperature.gpu": str(idle["temperature"] + round(busy * 0.35)),
            "pstate": "P0" if busy or used > CONTEXT_MIB else "P8",
            "gpu_recovery_action": self.recovery.get(str(index), "None"),
        }
        live |= {f"power.draw{kind} [W]": power for kind in ("", ".average", ".instant")}
        row = self.profile["fields"] | live
        if row["gpu_recovery_action"] == "Reset":
            row |= {name: "[GPU requires reset]" for name in row if bare(name) in RESET_FIELDS}
        return row


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
            "gpu_name": gpus.field("name"),
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
        print(f"GPU {index}: {gpus.field('name')} (UUID: {gpus.uuid(index)})")
        if nvlink:
            print("Device does not have or support Nvlink")


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
