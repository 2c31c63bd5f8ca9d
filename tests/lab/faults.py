"""Faults of hosts and of their (simulated) GPUs, made on purpose.

GPU faults last until `clear`, over a reboot as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import Any

from . import base, hosts
from .paths import LOGIN, LabError, host

XID_TEXTS = {
    13: "Graphics SM Warp Exception on (GPC 7, TPC 7, SM 0): Illegal Instruction Parameter",
    31: "MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f1c_2a000000. "
    "Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ",
    43: "Ch 00000008",
    45: "Ch 00000008",
    48: "An uncorrectable double bit error (DBE) has been detected on GPU in the framebuffer "
    "at physAddr 0x18f31d80 partition 16, subpartition 3.",
    63: "Row Remapper: New row (0x0000000018f31d80) marked for remapping, reset gpu to activate.",
    79: "GPU has fallen off the bus.",
    94: "Contained: SM (0x1). RST: No, D-RST: No",
    95: "Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No",
    119: "Timeout after 45s of waiting for RPC response from GPU0 GSP! Expected function 76 "
    "(GSP_RM_CONTROL) (0x20802068 0x4).",
}
NEEDS_RESET = {48, 64, 74, 95, 119, 120, 140}
"""Xids after which the driver asks for a reset of the GPU; after 79 it asks for a reboot."""
RECOVERY = {"Reset": "0x1 (GPU Reset Required)", "Reboot": "0x2 (Node Reboot Required)"}
NEWER_LIBRARY = "595.91.07"


def gpu_lost(name: str, index: int) -> None:
    """The GPU falls off the bus (Xid 79), and the processes that use it die of it."""
    _bus(name, index)
    users = hosts.ssh(name, f"nvidia-smi -i {index} --query-compute-apps=pid --format=csv,noheader")
    faults = _read(name)
    faults["lost"] = sorted({*faults.get("lost", []), index})
    _write(name, faults)
    _log_xid(name, 79, index)
    _log_recovery(name, "Reboot", index)
    for pid in filter(str.isdigit, users.stdout.split()):
        # It may have ended by now, by itself or with another rank.
        with contextlib.suppress(LabError, ProcessLookupError):
            os.kill(hosts.outer_pid(name, int(pid)), signal.SIGKILL)


def xid(name: str, number: int, index: int = 0) -> None:
    """The driver logs an Xid, and nvidia-smi says what it asks for."""
    if number == 79:
        return gpu_lost(name, index)
    _log_xid(name, number, index)
    if number in NEEDS_RESET:
        faults = _read(name)
        faults.setdefault("recovery", {})[str(index)] = "Reset"
        _write(name, faults)
        _log_recovery(name, "Reset", index)
    return None


def driver_mismatch(name: str) -> None:
    """The driver's library was upgraded and its kernel module was not: no GPU answers."""
    _write(name, _read(name) | {"mismatch": NEWER_LIBRARY})
    text = "NVRM: API mismatch: the client has the version {}, but\nNVRM: this kernel module has "
    text += "the version 595.80.  Please\nNVRM: make sure that this kernel module and all NVIDIA "
    text += "driver\nNVRM: components have the same version."
    hosts.log_from_kernel(name, text.format(NEWER_LIBRARY))


def foreign_process(name: str, index: int, mib: int) -> None:
    """Somebody else's process holds memory of a GPU."""
    _bus(name, index)
    faults = _read(name)
    process = {"pid": 4242, "name": "python3", "gpu": index, "mib": mib}
    faults.setdefault("foreign", []).append(process)
    _write(name, faults)


def clear(name: str) -> None:
    """All GPUs and the driver are well again."""
    _read(name)
    _write(name, {})


def no_sudo(name: str) -> None:
    """Take the deploy user's sudo away."""
    hosts.write_on_disk(name, f"/etc/sudoers.d/{LOGIN}", None)


def sudo(name: str) -> None:
    """Give the deploy user's sudo back."""
    hosts.write_on_disk(name, f"/etc/sudoers.d/{LOGIN}", base.SUDO_RULE)


def _read(name: str) -> dict[str, Any]:
    path = host(name).gpu_state / "faults.json"
    if not path.exists():
        raise LabError(f"{name} has no GPU, or the lab is down")
    return json.loads(path.read_text())


def _write(name: str, faults: dict[str, Any]) -> None:
    path = host(name).gpu_state / "faults.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(faults) + "\n")
    partial.rename(path)


def _bus(name: str, index: int) -> str:
    """The GPU's bus address as the driver logs it; an error if there is no such GPU."""
    _read(name)
    profile = json.loads((host(name).gpu_state / "profile.json").read_text())
    if not 0 <= index < len(profile["gpus"]):
        raise LabError(f"{name} has no GPU {index}")
    return profile["gpus"][index]["bus_id"][4:-2].lower()


def _log_xid(name: str, number: int, index: int) -> None:
    text = XID_TEXTS.get(number, "")
    who = "pid='<unknown>', name=<unknown>"
    hosts.log_from_kernel(name, f"NVRM: Xid (PCI:{_bus(name, index)}): {number}, {who}, {text}")


def _log_recovery(name: str, action: str, index: int) -> None:
    text = f"GPU recovery action changed from 0x0 (None) to {RECOVERY[action]}"
    hosts.log_from_kernel(name, f"NVRM: Xid (PCI:{_bus(name, index)}): 154, {text}")
