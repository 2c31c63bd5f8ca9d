#!/usr/bin/python3
"""amd-smi of ROCm 7.2 on a bare host: lists what the loaded amdgpu drives.

As the one of 7.0 it tells nobody anything who is neither root nor in the groups of the devices.
"""

from __future__ import annotations

import grp
import json
import os
import sys

import kernel

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
            case _:
                raise SmiError(f"Command {command!r} is not known to the lab's amd-smi")
    except SmiError as error:
        print(error, file=sys.stderr)
        return 1 if "Traceback" in str(error) else 255
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
