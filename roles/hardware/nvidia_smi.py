"""The output of nvidia-smi's GPU query: GPUs, driver version, and what is wrong, in words."""

import re
from collections import Counter
from dataclasses import dataclass

from roles.hardware.gpus import Gpu
from roles.hardware.terminal import clean_lines

QUERY = (
    "nvidia-smi --query-gpu=index,name,memory.total,driver_version --format=csv,noheader,nounits"
)

NO_DEVICES = "no devices were found"

# What nvidia-smi says instead of an answer, and what a person does about it.
_REMEDIES = (
    (
        "driver/library version mismatch",
        "the driver was updated while the old one stayed loaded: reboot the host",
    ),
    (
        "couldn't communicate with the nvidia driver",
        "the driver's kernel module is not loaded: install the driver for the running kernel, "
        "or reboot into the kernel that has it",
    ),
    ("couldn't find libnvidia-ml", "the driver is incomplete: install it again"),
    ("gpu is lost", "the GPU fell off the PCI bus: reboot the host; if it recurs, check the card"),
    ("requires reset", "reset the GPU (nvidia-smi --gpu-reset) or reboot the host"),
    ("unable to determine the device handle", "the GPU does not answer: reboot the host"),
    ("unknown error", "the GPU does not answer: reboot the host"),
    ("insufficient permissions", "the user may not query the GPU: check /dev/nvidia* and MIG"),
    (NO_DEVICES, "the driver sees no GPU: check the card's seat and power, and dmesg"),
    ("no supported devices in vgpu mode", "the hypervisor gives this host no vGPU: check its side"),
    ("command not found", "the driver is not installed: install it"),
    ("not found, but can be installed", "the driver is not installed: install it"),
    ("failed to initialize nvml", "the driver does not start: look at dmesg, reboot the host"),
)
_NO_REMEDY = "the driver does not tell it, so the GPU cannot be planned for"

_ROW = re.compile(r"(?:[0-9]+|\[[^\]]*\])\s*,")
_PLACEHOLDER = re.compile(r"\[.*\]|N/A", re.IGNORECASE)
_INDEX = re.compile(r"[0-9]{1,4}")
_MEMORY_MIB = re.compile(r"([0-9]{1,8})(?: MiB)?")
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)+")


@dataclass(frozen=True)
class SmiReport:
    """What the driver says: `gpus` is None where it could not be asked at all."""

    gpus: tuple[Gpu, ...] | None
    driver_version: str | None = None
    faults: tuple[str, ...] = ()


def parse_query(text: str) -> SmiReport:
    """Read the output of `QUERY`, terminal colours, CRLF and lines of warning included.

    A GPU with an unknown index, name or memory becomes a fault, never a guess. ValueError, with
    the line, where the text is no such output.
    """
    lines = clean_lines(text)
    rows = [line for line in lines if _ROW.match(line)]
    messages = [line for line in lines if not _ROW.match(line)]
    faults = [fault for fault in map(_fault, messages) if fault]
    if not rows and not faults:
        first = messages[0] if messages else ""
        raise ValueError(f"not an answer of nvidia-smi --query-gpu: {first!r}")
    gpus, row_faults, versions = _read(rows)
    asked = bool(rows) or any(NO_DEVICES in line.lower() for line in messages)
    return SmiReport(
        gpus if asked else None,
        versions[0] if versions else None,
        tuple(dict.fromkeys(faults + row_faults)),
    )


def _read(rows: list[str]) -> tuple[tuple[Gpu, ...], list[str], list[str]]:
    """GPUs by index, faults of those that cannot be told, versions of the driver."""
    gpus: list[Gpu] = []
    faults: list[str] = []
    versions: list[str] = []
    for line in rows:
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 4:
            raise ValueError(f"expected index, name, memory and driver version in {line!r}")
        unknown = next((field for field in fields[:3] if _PLACEHOLDER.fullmatch(field)), None)
        if unknown is None:
            gpus.append(_gpu(fields, line))
        else:
            faults.append(f"GPU {fields[0]} ({fields[1]}) reports {unknown}: {_remedy(unknown)}")
        if not _PLACEHOLDER.fullmatch(fields[3]):
            versions.append(_version(fields[3], line))
    _refuse_twice(gpus)
    return tuple(sorted(gpus, key=lambda gpu: gpu.index)), faults, versions


def _gpu(fields: list[str], line: str) -> Gpu:
    index, name, memory = fields[:3]
    number = _MEMORY_MIB.fullmatch(memory)
    if not _INDEX.fullmatch(index) or not name or number is None or int(number[1]) == 0:
        raise ValueError(f"not a GPU's index, name and memory in MiB: {line!r}")
    return Gpu(int(index), name, int(number[1]))


def _version(text: str, line: str) -> str:
    if not _VERSION.fullmatch(text):
        raise ValueError(f"{text!r} is no driver version in {line!r}")
    return text


def _refuse_twice(gpus: list[Gpu]) -> None:
    twice = [index for index, count in Counter(gpu.index for gpu in gpus).items() if count > 1]
    if twice:
        raise ValueError(f"nvidia-smi lists GPU {twice[0]} more than once")


def _remedy(text: str) -> str:
    lowered = text.lower()
    return next((remedy for sign, remedy in _REMEDIES if sign in lowered), _NO_REMEDY)


def _fault(line: str) -> str | None:
    """The line with its remedy, or None for a line that only informs or warns."""
    remedy = _remedy(line)
    return None if remedy is _NO_REMEDY else f"{line}: {remedy}"
