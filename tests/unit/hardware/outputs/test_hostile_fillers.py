"""A host that prints a megabyte to hold everybody up: every reader takes time by its length alone.

A reader that is quadratic takes seconds for the sizes here, and hours for what a host may print.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from roles.hardware.cuda import cuda_fault
from roles.hardware.kinds import READERS
from roles.hardware.outputs.amd_processes import parse_amd_processes
from roles.hardware.outputs.text import OutputError
from roles.hardware.system import parse_system
from tests.unit.hardware.outputs.host_outputs import names, output

# A linear reader takes a tenth of it here, a quadratic one seconds for a short text and hours for a
# long one.
SHORT, SHORT_LIMIT_S, LONG_LIMIT_S = 15_000, 0.5, 5.0
FILLERS = (
    *(" ", "\t", "1", ".", ":", ",", "[", "<", "a", "\r", "=", "|", '"', "-", "{", "("),
    *("GPU ", "GPU 1: a ", "a ", "1, ", '\\"', " (UUID: ", "NV1", "X ", "\x1b[0", "\x1b]", "/a"),
    *(
        "Channel 1:",
        "NCCL WARN ",
        "Link 1: ",
        "libnvidia-ml",
        "<!DOCTYPE ",
        "--query-",
        "truncated",
    ),
)
LINES = (
    *("GPU {n}: NVIDIA H200 (UUID: GPU-{n})", "  MIG 1g.10gb  Device  {n}: (UUID: MIG-{n})"),
    *(
        "GPU{n}",
        "GPU{n} X NV1",
        "GPU{n} GPU{n}0",
        "x",
        "Link {n}: 25 GB/s",
        "a{n} : b",
        "| a | b |",
    ),
    *(
        "NVRM: GPU 0000:{n:04x}:00.0: RmInitAdapter failed",
        "[{n}",
        '{{"gpu": {n}',
        "GPU[{n}] : a: b",
    ),
    *("NVRM: Xid (PCI:{n:04x}:00:00): 79, a", "{n:04x}:00:00.0 VGA compatible controller: (a{n}"),
    *("{n}, NVIDIA H200, 1 MiB", "<a>", "GPU: {n}", "Channel 00/{n} :", "== /sys/{n} ==", "- {n}"),
)
SYSTEM = ("os", "kernel", "memory", "shm", "numa", "secure-boot", "modules", "nvidia-loaded")
SYSTEM += ("nvidia-installed", "nvidia-license", "fabric-manager", "pci", "paths", "acs")
ALL: dict[str, Callable[[str], object]] = {
    **READERS,
    "amd-processes": parse_amd_processes,
    "system": lambda text: parse_system(dict.fromkeys(SYSTEM, text)),
    "cuda": lambda text: cuda_fault(text, 1),
}
readers = pytest.mark.parametrize("kind", list(ALL))


def check(kind: str, texts: Iterator[tuple[str, str]], limit_s: float = SHORT_LIMIT_S) -> None:
    """Each text, by its name, must be read or refused in CPU seconds within the limit."""
    for name, text in texts:
        start = time.process_time()
        with suppress(OutputError):
            ALL[kind](text)
        taken = time.process_time() - start
        assert taken < limit_s, f"{kind}: {taken:.1f} s for {name}"


@readers
def test_fillers_alone(kind: str):
    check(kind, ((repr(filler), filler * (SHORT // len(filler))) for filler in FILLERS))


@readers
def test_many_lines(kind: str):
    check(kind, ((form, "".join(f"{form.format(n=n)}\n" for n in range(500))) for form in LINES))


@readers
def test_fillers_within_real_lines(kind: str):
    check(kind, filled(kind))


def filled(kind: str) -> Iterator[tuple[str, str]]:
    """The lines of a real output that differ in kind, each broken by a filler in some places."""
    text = min(map(output, names(kind)), key=len) if kind in READERS else "cuda 0 1"
    shapes = {
        re.sub("[a-z]+", "a", re.sub("[0-9]+", "0", line.lower())): line
        for line in text.splitlines()
    }
    for line in list(shapes.values())[:4]:
        places = [0, len(line), *(m.start() for m in re.finditer(r"\b", line))]
        for at in places[:: len(places) // 5 + 1]:
            for filler in (" ", "a"):
                broken = line[:at] + filler * (SHORT // len(filler)) + line[at:]
                yield f"{line[:at]!r} + {filler!r}", text.replace(line, broken, 1)


@readers
def test_a_megabyte(kind: str):
    check(kind, iter([("GPU", "GPU " * 250_000)]), LONG_LIMIT_S)


@pytest.mark.parametrize("kind", READERS)
def test_numbers_of_thousands_of_digits_are_refused(kind: str):
    text = min(map(output, names(kind)), key=len)
    for number in set(re.findall("[0-9]+", text)):
        with suppress(OutputError):
            READERS[kind](text.replace(number, "7" * 5000, 1))
