"""GPUs on the PCI bus, read from `lspci -nn`: what a host has where no driver can be asked."""

import re
from dataclasses import dataclass

from roles.hardware.terminal import clean_lines

# Class 03 is display controllers; AMD's newer accelerators without a display are class 12.
_GPU = re.compile(
    r"\b(?P<address>(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) "
    r"[^\[\]]*\[(?:03|12)[0-9a-f]{2}\]: "
    r"(?P<name>.*) ?\[(?P<id>(?:10de|1002):[0-9a-f]{4})\]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class PciGpu:
    """A GPU by its address ("0000:01:00.0"), vendor and device id ("10de:26b9") and name."""

    address: str
    device_id: str
    name: str


def parse_lspci(text: str) -> tuple[PciGpu, ...]:
    """The NVIDIA and AMD GPUs among the lines of `lspci -nn`; other lines are passed over."""
    matches = [_GPU.search(line) for line in clean_lines(text)]
    return tuple(_pci_gpu(match) for match in matches if match)


def _pci_gpu(match: re.Match[str]) -> PciGpu:
    address = match["address"].lower()
    if address.count(":") == 1:
        address = f"0000:{address}"
    return PciGpu(address, match["id"].lower(), match["name"].strip())
