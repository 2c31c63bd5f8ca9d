#!/usr/bin/python3
"""nvidia-smi on a bare host, once a driver is installed: what it says follows from the host.

The library's version is read from the file that libnvidia-ml.so.1 points to, the driver's from the
loaded module: where they differ or one is not there, it fails as the real one does. Persistence
mode and the state of the NVLink fabric follow from the daemons that run. All else is said by the
lab's nvidia-smi. Arguments: the version of the package that installed it, then nvidia-smi's own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nvidia_smi

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
LOADED = Path("/sys/module/nvidia/version")
NO_LIBRARY = 12
CUDA_OF_BRANCH = {"580": "13.0", "590": "13.1"}
PERSISTENCED = Path("/run/nvidia-persistenced/nvidia-persistenced.pid")
FABRIC_MANAGER = Path("/run/nvidia-fabricmanager/nv-fabricmanager.pid")


def runs(pid_file: Path) -> bool:
    """True if the daemon with this PID file is alive."""
    try:
        return Path(f"/proc/{int(pid_file.read_text())}").exists()
    except (OSError, ValueError):
        return False


def library_version() -> str:
    """The version of the NVML library that a program gets."""
    try:
        return os.path.realpath(LIBRARY, strict=True).partition(".so.")[2]
    except OSError:
        text = "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure "
        text += "that the NVIDIA Display Driver is properly installed and present in your system.\n"
        text += "Please also try adding directory that contains libnvidia-ml.so to your system "
        raise nvidia_smi.SmiError(f"{text}PATH.\n\n", NO_LIBRARY) from None


def driver_version() -> str:
    """The version of the loaded module, where the library fits to it."""
    library = library_version()
    if not LOADED.exists():
        text = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
        text += "Make sure that the latest NVIDIA driver is installed and running.\n\n"
        raise nvidia_smi.SmiError(text, nvidia_smi.NO_DRIVER)
    loaded = LOADED.read_text().strip()
    if loaded != library:
        text = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: "
        # The real one leaves out what comes after the second number.
        text += ".".join(library.split(".")[:2])
        raise nvidia_smi.SmiError(f"{text}\n", nvidia_smi.MISMATCH)
    return loaded


class InstalledGpus(nvidia_smi.Gpus):
    """The host's GPUs as the installed driver shows them."""

    def __init__(self) -> None:
        version = driver_version()
        super().__init__()
        fields = self.profile["fields"]
        branch = version.split(".")[0]
        self.profile["cuda_version"] = CUDA_OF_BRANCH.get(branch, self.profile["cuda_version"])
        fields["driver_version"] = fields["kmd_version"] = version
        fields["persistence_mode"] = "Enabled" if runs(PERSISTENCED) else "Disabled"
        if fields["fabric.state"] != "N/A" and not runs(FABRIC_MANAGER):
            fields |= {"fabric.state": "In Progress", "fabric.status": "N/A"}


def listing(gpus: nvidia_smi.Gpus, selector: str | None, nvlink: bool = False) -> None:
    """-L, and nvlink -s of cards that may have NVLinks."""
    rates = gpus.profile.get("nvlink_rates", [])
    if not nvlink or not rates:
        return plain_listing(gpus, selector, nvlink)
    for index in gpus.chosen(selector):
        print(f"GPU {index}: {gpus.field('name', index)} (UUID: {gpus.uuid(index)})")
        for number, rate in enumerate(rates):
            print(f"\t Link {number}: {rate}")
    return None


plain_listing = nvidia_smi.listing

if __name__ == "__main__":
    del sys.argv[1]
    nvidia_smi.Gpus = InstalledGpus
    nvidia_smi.listing = listing
    sys.exit(nvidia_smi.main())
