"""Parses the GPUs on the PCI bus from lspci, for hosts without a working driver."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from roles.hardware.outputs.record import GpuRecord
from roles.hardware.outputs.text import MAX_GPUS, MAX_NAME_LENGTH, Line, OutputError, read_lines
from roles.hardware.outputs.values import pci_address

# A device's line: maybe a prefix (of grep, "IOMMU Group 17"), address, class, vendor and device.
_DEVICE = re.compile(
    r"(?:^|[\s:>])(?P<address>(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]) "
    r"(?:(?P<class_code>[0-9a-f]{4})"
    r"|(?P<class_name>(?:3D|[A-Z])[^\[\]:|]*?)(?: \[(?P<class_id>[0-9a-f]{4})\])?)"
    r": (?P<device>\S.*)$"
)
# As classes 03 and 12 of the PCI ID repository: displays, and AMD's accelerators without one.
_GPU_CLASSES = ("03", "12")
_GPU_CLASS_NAMES = (
    "VGA compatible controller",
    "XGA compatible controller",
    "3D controller",
    "Display controller",
    "Processing accelerators",
)
# Of 1002 also what ATI made; AMD's processors, bridges and NPUs have vendor 1022 and no "ATI".
_VENDORS = (
    ("10de", "NVIDIA", re.compile(r"NVIDIA(?: Corporation)?(?:$| )", re.IGNORECASE)),
    (
        "1002",
        "AMD",
        re.compile(
            r"(?:Advanced Micro Devices,? Inc\.? \[AMD/ATI\]|ATI Technologies Inc\.?)(?:$| )",
            re.IGNORECASE,
        ),
    ),
)
_IDS = re.compile(r"(?:^| )\[?([0-9a-f]{4}:[0-9a-f]{4})\]?(?= |$)")
_REVISION = re.compile(r" \(rev ([0-9a-f]{2})\)")
_MAX_LINE_LENGTH = 1000
_UNNAMED = re.compile(r"Device ([0-9a-f]{4})")
_DRIVER = re.compile(r"^\s*Kernel driver in use: (\S+)$")


@dataclass(frozen=True)
class PciGpu(GpuRecord):
    """A GPU on the PCI bus, with the fields that only the bus has.

    `name` is lspci's without the vendor ("GA102GL [A40]"; "Device 2bb5" where its table has none),
    `index` is None: only a driver numbers GPUs. `vendor` is "NVIDIA" or "AMD"; an AMD GPU may be
    the processor's own, which lspci shows like any other. `pci_class` is as printed: "0302",
    "3D controller". `kernel_driver` is the driver in use ("vfio-pci": given to a virtual machine).
    """

    vendor: str = ""
    pci_class: str = ""
    revision: str | None = None
    kernel_driver: str | None = None


@dataclass(frozen=True)
class Lspci:
    """The NVIDIA and AMD GPUs on the bus, in the order of the output."""

    gpus: tuple[PciGpu, ...]


def parse_lspci(text: str) -> Lspci:
    """Read lspci's list of a host or an excerpt, with names, ids or both; OutputError for others.

    The machine-readable forms (-m, -vmm) are not read.
    """
    lines = read_lines(text)
    if not lines:
        raise OutputError("lspci printed nothing")
    devices = list(_devices(_unwrapped(lines)))
    if not devices:
        raise OutputError("this is no output of lspci", lines[0])
    gpus = [gpu for device, driver in devices if (gpu := _gpu(device, driver)) is not None]
    if len(gpus) > MAX_GPUS:
        raise OutputError(f"more than {MAX_GPUS} GPUs")
    return Lspci(tuple(gpus))


def _unwrapped(lines: list[Line]) -> list[Line]:
    """The lines, with lines joined that a terminal wrapped inside brackets."""
    joined: list[Line] = []
    for line in lines:
        before = joined[-1] if joined else None
        if (
            before is not None
            and _DEVICE.search(before.text)
            and not _DEVICE.search(line.text)
            and not line.text[0].isspace()
            and len(before.text) <= _MAX_LINE_LENGTH
            and _open_bracket(before.text)
        ):
            joined[-1] = Line(before.number, before.text + line.text)
        else:
            joined.append(line)
    return joined


def _open_bracket(text: str) -> bool:
    return any(text.count(opening) > text.count(closing) for opening, closing in ("[]", "()"))


def _devices(lines: list[Line]) -> Iterator[tuple[re.Match[str], str | None]]:
    """Each device with the driver from the lines below it."""
    device: re.Match[str] | None = None
    driver: str | None = None
    for line in lines:
        if match := _DEVICE.search(line.text):
            if device:
                yield device, driver
            device, driver = match, None
        elif match := _DRIVER.match(line.text):
            driver = match[1]
    if device:
        yield device, driver


def _gpu(match: re.Match[str], driver: str | None) -> PciGpu | None:
    code = match["class_code"] or match["class_id"]
    if not (code.startswith(_GPU_CLASSES) if code else match["class_name"] in _GPU_CLASS_NAMES):
        return None
    device = re.sub(r" \(prog-if .*$", "", match["device"])
    revision = _REVISION.search(device)
    device = _REVISION.sub("", device)
    ids = _IDS.search(device)
    named = _IDS.split(device)[0].strip()
    for vendor_id, vendor, pattern in _VENDORS:
        vendor_match = pattern.match(named)
        if ids[1].startswith(vendor_id) if ids else vendor_match:
            name = named[vendor_match.end() :].strip() if vendor_match else named
            unnamed = _UNNAMED.fullmatch(name)
            return PciGpu(
                name=name[:MAX_NAME_LENGTH] or None,
                pci_address=pci_address(match["address"]),
                pci_device_id=ids[1] if ids else f"{vendor_id}:{unnamed[1]}" if unnamed else None,
                vendor=vendor,
                pci_class=code or match["class_name"],
                revision=revision[1] if revision else None,
                kernel_driver=driver,
            )
    return None
