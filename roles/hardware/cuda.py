"""Checks that CUDA itself starts: nvidia-smi may answer although no program can use a GPU."""

import re

from roles.hardware.faults import Fault

TIMEOUT_S = 120

# Uses only the driver's own library, no toolkit: the first calls that torch makes.
PROGRAM = """
import ctypes
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError as error:
    print("cuda missing", error)
else:
    count = ctypes.c_int(0)
    code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    print("cuda", code, count.value)
"""
SCRIPT = f"timeout -k 5 {TIMEOUT_S} python3 -c '{PROGRAM}' 2>&1 || echo cuda ended $?"

# Source: the CUDA driver API's documentation of CUresult; remedies are from public issue threads.
_CODES = {
    100: ("no GPU", "look at nvidia-smi and at CUDA_VISIBLE_DEVICES"),
    101: ("a GPU that is not valid", "look at nvidia-smi; reboot the host"),
    802: (
        "a system that is not yet initialised",
        "the fabric manager has to run on hosts with NVSwitches, in exactly the driver's version",
    ),
    803: (
        "a driver and a libcuda of different versions",
        "look for a second libcuda.so.1 (ldconfig -p | grep libcuda); reboot after an upgrade",
    ),
    804: (
        "a driver older than its compatibility library",
        "remove the cuda-compat package, or install a newer driver",
    ),
    999: ("an unknown error", "look at dmesg; reload nvidia_uvm or reboot the host"),
}


def cuda_fault(text: str, gpus: int | None) -> Fault | None:
    """The fault that `SCRIPT`'s output shows; None if CUDA starts and sees all GPUs.

    `gpus` is the number that CUDA should see; None if CUDA shows only one of several MIG slices.
    """
    if missing := re.search(r"^cuda missing (.*)", text, re.MULTILINE):
        return _fault(
            f"libcuda.so.1 cannot be loaded: {missing[1].strip()}",
            "install the driver's compute libraries (libcuda1, libnvidia-compute-…, "
            "nvidia-driver-cuda-libs)",
        )
    found = re.search(r"^cuda ([0-9]{1,6}) ([0-9]{1,6})$", text, re.MULTILINE)
    if found is None:
        last_line = (text.strip().splitlines() or ["silent"])[-1]
        return _fault(
            f"CUDA did not start within {TIMEOUT_S} s or crashed ({last_line})",
            "look at dmesg for Xid errors; reboot the host",
        )
    code, count = int(found[1]), int(found[2])
    if code:
        problem, remedy = _CODES.get(code, (f"error {code}", "look at dmesg"))
        return _fault(f"CUDA finds {problem} (error {code})", remedy)
    if gpus is not None and count != gpus:
        return _fault(
            f"CUDA sees {count} GPUs where nvidia-smi shows {gpus}",
            "look at dmesg; a GPU in MIG mode without slices, or one that was lost, is not seen",
        )
    return None


def _fault(problem: str, remedy: str) -> Fault:
    return Fault("cuda-does-not-start", "stop", problem, remedy)
