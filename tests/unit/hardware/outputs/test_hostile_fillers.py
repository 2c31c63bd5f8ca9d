"""A host that prints a megabyte to hold everybody up: every reader ends within a hang's limit."""

import re
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from roles.hardware.kinds import READERS
from roles.hardware.outputs.amd_processes import parse_amd_processes
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.host_outputs import OUTPUTS, names, output

LIMIT_S = 2.0
SIZE = 1_000_000
# Each ends a word, a run or a cell in another way; a quadratic reader takes minutes for one.
FILLERS = (
    *(" ", "\t", "\xa0", "1", ".", ":", ",", "[", "<", "a", "\r", "=", "|", '"', "\\", "-", "{"),
    *("GPU ", "GPU 1: a ", "a ", "1, ", '\\"', "(UUID: ", "NV1", "X ", "\x1b[0", "\x1b]"),
)
LINES = (
    *("GPU {}: NVIDIA H200 (UUID: GPU-{})", "  MIG 1g.10gb  Device  {}: (UUID: MIG-{})"),
    *("GPU{}", "GPU{} X NV1", "GPU{} GPU{}", "x", "Link {}: 25 GB/s", "a{} : b", "| a | b |"),
    *("NVRM: GPU 0000:{:02x}:00.0: RmInitAdapter failed", "[{}", '{{"gpu": {}', "GPU[{}] : a: b"),
    *("NVRM: Xid (PCI:0000:{:02x}:00): 79, a", "{:02x}:00.0 VGA compatible controller: (a{}"),
    *("upstream a{} {{", "libnvidia-ml", "<!DOCTYPE a{}", "{}, NVIDIA H200, 1 MiB", "<a>", "GPU: {}"),
    *("    Channel 00/{} :", "NCCL WARN a", "== /sys/{} ==", "driver : nvidia-driver-{}"),
)
Reader = Callable[[str], object]
ALL: dict[str, Reader] = {**READERS, "amd-processes": parse_amd_processes}


def seconds(read: Reader, text: str) -> float:
    """CPU seconds, of which a busy machine has no more than an idle one."""
    start = time.process_time()
    with suppress(OutputError):
        read(text)
    return time.process_time() - start


def lines(form: str) -> str:
    """A megabyte of lines, each with another number."""
    count = SIZE // (len(form) + 4)
    return "".join(form.replace("{:02x}", f"{n:02x}").replace("{}", str(n)) + "\n" for n in range(count))
