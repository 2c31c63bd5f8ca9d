#!/usr/bin/python3
"""amd-smi of ROCm 7.2 on a bare host: lists what the loaded amdgpu drives, and who uses it.

As the one of 7.0 it tells nobody anything who is neither root nor in the groups of the devices.
What a card is comes from the profile; memory, use and processes come from the simulated driver.
`monitor` prints its table; `metric` and `process` know JSON alone, as amdsmi_cli/amdsmi_commands.py
makes it.
"""

from __future__ import annotations

import grp
import json
import os
import socket
import sys

import kernel

SOCKET = "/run/lab-gpu.sock"
# What amdgpu itself holds of a card of some 192 GiB at rest.
IDLE_MIB = 283
GROUPS = ("render", "video")
VERSION = "AMDSMI Tool: 26.2.2+e1a6bc5663 | AMDSMI Library version: 26.2.2 | ROCm version: 7.2.3"


class SmiError(Exception):
    """Why nothing is listed."""


def devices() -> list[dict]:
    """The GPUs of the profile that amdgpu drives, in its order."""
    modules = kernel.loaded()
    if "amdgpu" not in modules:
        raise SmiError(
            "ERROR:root:Unable to get devices, driver not initialized (amdgpu not found in modules)"
        )
    driven = [device["address"] for device in kernel.amd_gpus(modules)]
    return [gpu for gpu in kernel.profile()["amd"] if gpu["address"] in driven]


def check_groups() -> None:
    """Whoever may not open the devices is refused."""
    mine = {grp.getgrgid(number).gr_name for number in os.getgroups()}
    missing = [name for name in GROUPS if name not in mine]
    if os.geteuid() != 0 and missing:
        raise SmiError(
            "Traceback (most recent call last):\n  ...\nRuntimeError: WARNING: User is missing the "
            f"following required groups: {', '.join(missing)}. Please add user to these groups."
        )


def listing() -> None:
    for index, gpu in enumerate(devices()):
        print(f"GPU: {index}\n    BDF: 0000:{gpu['address']}\n    UUID: {gpu['uuid']}")
        print(f"    KFD_ID: {58965 + index}\n    NODE_ID: {index + 1}\n    PARTITION_ID: 0\n")


def static() -> dict:
    version = kernel.loaded().get("amdgpu") or "Linuxversion6.1.0"
    return {"gpu_data": [of_one(index, gpu, version) for index, gpu in enumerate(devices())]}


def of_one(index: int, gpu: dict, version: str) -> dict:
    """What `static` tells of one GPU."""
    asic = {"market_name": gpu["market_name"], "vendor_id": "0x1002", "device_id": gpu["device_id"]}
    asic |= {"num_compute_units": gpu["simd_count"] // 4}
    return {
        "gpu": index,
        "asic": asic | {"target_graphics_version": gpu["graphics"]},
        "bus": {"bdf": f"0000:{gpu['address']}", "max_pcie_width": 16},
        "limit": {"socket_power": {"value": gpu["power_w"], "unit": "W"}},
        "driver": {"name": "amdgpu", "version": version},
        "vram": {"size": {"value": gpu["memory_mib"], "unit": "MB"}},
        "numa": {"node": 0, "affinity": 0},
    }


def topology() -> list[dict]:
    """How the GPUs are linked."""
    gpus = devices()
    kind = "XGMI" if kernel.profile()["xgmi"] else "PCIE"
    return [
        {
            "gpu": index,
            "bdf": f"0000:{gpu['address']}",
            "links": [link(other, gpus[other], index, kind) for other in range(len(gpus))],
        }
        for index, gpu in enumerate(gpus)
    ]


def link(other: int, gpu: dict, index: int, kind: str) -> dict:
    is_self = other == index
    return {
        "gpu": other,
        "bdf": f"0000:{gpu['address']}",
        "weight": 0 if is_self else 15,
        "link_status": "ENABLED",
        "link_type": "SELF" if is_self else kind,
        "num_hops": 0 if is_self else 1,
        "bandwidth": "N/A",
    }


def live(wanted: str) -> dict:
    """What the driver sees now: `processes`, or `all` for the cards' utilization too."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(SOCKET)
            link.sendall(wanted.encode())
            output: dict = json.loads(b"".join(iter(lambda: link.recv(65536), b"")))
    except (OSError, ValueError):
        raise SmiError("ERROR:root:Unable to get devices, driver not initialized") from None
    faults = json.loads((kernel.STATE / "faults.json").read_text())
    output["processes"] += faults.get("foreign", [])
    return output


def uses(wanted: str = "all") -> list[tuple[dict, int, list[dict]]]:
    """Each GPU with its utilization in percent and the processes that hold memory of it."""
    output = live(wanted)
    places = {card["uuid"]: place for place, card in enumerate(kernel.profile()["amd"])}
    found = []
    for gpu in devices():
        place = places[gpu["uuid"]]
        held = [process for process in output["processes"] if process["gpu"] == place]
        found.append((gpu, output["utilization"][place], held))
    return found


def used_mib(gpu: dict, held: list[dict]) -> int:
    return min(gpu["memory_mib"], IDLE_MIB + sum(process["mib"] for process in held))


def amount(value: object, unit: str) -> dict:
    return {"value": value, "unit": unit}


def metric(options: list[str]) -> dict:
    """Use and memory of each GPU, of those that are asked for."""
    known = {"--usage": usage, "-u": usage, "--mem-usage": memory, "-m": memory}
    asked = [option for option in options if option != "--json"]
    if "--json" not in options or set(asked) - set(known):
        raise unknown("metric", options)
    parts = dict.fromkeys(known[option] for option in asked) or {usage: None, memory: None}
    output = []
    for index, one in enumerate(uses()):
        output.append({"gpu": index})
        for part in parts:
            output[-1] |= part(*one)
    return {"gpu_data": output}


def usage(gpu: dict, busy: int, held: list[dict]) -> dict:
    return {
        "usage": {
            "gfx_activity": amount(busy, "%"),
            "umc_activity": amount(busy // 3, "%"),
            "mm_activity": "N/A",
            "vcn_activity": [amount(0, "%"), "N/A", "N/A", "N/A"],
        }
    }


def memory(gpu: dict, busy: int, held: list[dict]) -> dict:
    total, used = gpu["memory_mib"], used_mib(gpu, held)
    sizes = {"vram": (total, used), "visible_vram": (total, used), "gtt": (128 << 10, 24)}
    return {
        "mem_usage": {
            f"{word}_{kind}": amount(value, "MB")
            for kind, (whole, taken) in sizes.items()
            for word, value in (("total", whole), ("used", taken), ("free", whole - taken))
        }
    }


def process() -> list[dict]:
    """The processes on each GPU."""
    output = []
    for index, (_, _, held) in enumerate(uses("processes")):
        listed: list[dict] = [{"process_info": process_info(one)} for one in held]
        none = [{"process_info": "No running processes detected"}]
        output.append({"gpu": index, "process_list": listed or none})
    return output


def process_info(one: dict) -> dict:
    size = one["mib"] << 20
    memory_usage = {"gtt_mem": 2134016, "cpu_mem": 211795968, "vram_mem": size}
    return {
        "name": one["name"],
        "pid": one["pid"],
        "memory_usage": {name: amount(value, "B") for name, value in memory_usage.items()},
        "mem_usage": amount(size + 213929984, "B"),
        "usage": {"gfx": amount(0, "ns"), "enc": amount(0, "ns")},
    }


def monitor() -> None:
    """The table of use and memory, as of ROCm 6.4."""
    print("GPU  GFX%  MEM%  VRAM_USED  VRAM_FREE  VRAM_TOTAL")
    for index, (gpu, busy, held) in enumerate(uses()):
        total, used = gpu["memory_mib"], used_mib(gpu, held)
        sizes = "".join(f"{f'{mib} MB':>11}" for mib in (used, total - used))
        print(f"{index:>3}{f'{busy} %':>6}{f'{busy // 3} %':>6}{sizes}{f'{total} MB':>12}")


def unknown(command: str, options: list[str]) -> SmiError:
    return SmiError(f"{command} {' '.join(options)} is not known to the lab's amd-smi")


def main(arguments: list[str]) -> int:
    """Run one command."""
    command = arguments[0] if arguments else ""
    try:
        if command == "version":
            print(f"{VERSION} | amdgpu version: {kernel.loaded().get('amdgpu') or 'N/A'}")
            return 0
        check_groups()
        match command:
            case "list":
                listing()
            case "static":
                print(json.dumps(static(), indent=4))
            case "topology":
                print(json.dumps(topology(), indent=4))
            case "metric":
                print(json.dumps(metric(arguments[1:]), indent=4))
            case "process" if arguments[1:] == ["--json"]:
                print(json.dumps(process(), indent=4))
            case "monitor" if not arguments[1:]:
                monitor()
            case _:
                raise unknown(command, arguments[1:])
    except SmiError as error:
        print(error, file=sys.stderr)
        return 1 if "Traceback" in str(error) else 255
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
