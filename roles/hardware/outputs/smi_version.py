"""`nvidia-smi --version` and /proc/driver/nvidia/version: the driver and its interfaces."""

import re
from dataclasses import dataclass

from roles.hardware.outputs.text import OutputError, read_lines
from roles.hardware.outputs.values import version

_PROC = re.compile(r"NVRM version:\s.*?\s([0-9]{1,6}(?:\.[0-9]{1,6}){1,3})(?:\s.*)?")
_KEYS = {
    "nvidia-smi version": "smi",
    "nvml version": "nvml",
    "driver version": "driver",
    "kmd version": "driver",
    "cuda version": "cuda",
    "cuda umd version": "cuda",
}


@dataclass(frozen=True)
class SmiVersion:
    """Versions as printed; `cuda` is the newest CUDA that the driver runs, not the toolkit's."""

    driver: str | None = None
    cuda: str | None = None
    nvml: str | None = None
    smi: str | None = None


def parse_smi_version(text: str) -> SmiVersion:
    """Read either output; driver 610 calls the driver's line "KMD version".

    OutputError if no line has nvidia-smi's or the kernel module's version.
    """
    lines = read_lines(text)
    found: dict[str, str] = {}
    for line in lines:
        proc = _PROC.fullmatch(line.text.strip())
        if proc is not None:
            found.setdefault("driver", proc[1])
        name, _, value = line.text.partition(":")
        key, value = _KEYS.get(name.strip().lower()), version(value)
        if key is not None and value is not None:
            found.setdefault(key, value)
    # nvidia-smi -q, which has a driver's and a CUDA version too, has neither of these.
    from_proc = any(_PROC.fullmatch(line.text.strip()) for line in lines)
    if not from_proc and not {"smi", "nvml"} & found.keys():
        first = lines[0] if lines else None
        raise OutputError("no versions as nvidia-smi --version prints them", first)
    return SmiVersion(**found)
