#!/usr/bin/python3
"""What CUDA says when it starts on a bare host: its CUresult, and the number of GPUs.

Argument: the version of the library that was loaded, which the kernel's module must have too.
"""

from __future__ import annotations

import sys

import installed_smi
import nvidia_smi

NO_DEVICE, NOT_INITIALIZED, MISMATCH = 100, 802, 803


def start(library: str) -> tuple[int, int]:
    """The code of cuInit, and of how many GPUs."""
    if not installed_smi.LOADED.exists():
        return NO_DEVICE, 0
    if installed_smi.LOADED.read_text().strip() != library:
        return MISMATCH, 0
    try:
        gpus = installed_smi.InstalledGpus()
    except nvidia_smi.SmiError:
        return NO_DEVICE, 0
    if gpus.profile["fields"]["fabric.state"] == "In Progress":
        return NOT_INITIALIZED, 0
    return 0, len(gpus.profile["gpus"]) - len(gpus.lost)


if __name__ == "__main__":
    print(*start(sys.argv[1]))
