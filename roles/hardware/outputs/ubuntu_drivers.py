"""Which packages of NVIDIA's driver Ubuntu offers: `ubuntu-drivers devices`."""

import re
from dataclasses import dataclass, field

from roles.hardware.outputs.text import Line, OutputError, read_lines

_SECTION = re.compile(r"^== (\S.*?) ==$")
_VALUE = re.compile(r"^\s*(modalias|vendor|model|driver|manual_install)\s*:\s*(.*)$")
_DRIVER = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]*) - (?P<source>distro|third-party) (?P<license>free|non-free)"
    r"(?P<words>(?: (?:recommended|builtin|manual_install))*)"
)
# nvidia-driver-580-server-open, nvidia-headless-580, and before 2018 nvidia-384.
_BRANCH = re.compile(r"nvidia-(?:driver-|headless-|headless-no-dkms-)?(\d{2,4})(?:-[a-z-]+)?")
_MODALIAS = re.compile(r"pci:v0000([0-9A-F]{4})d0000([0-9A-F]{4})sv")
_ADDRESS = re.compile(r"/([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])$")
_NVIDIA_ID = "10de:"


@dataclass(frozen=True)
class Driver:
    """A driver package of NVIDIA's GPU: `branch` is 580 of "nvidia-driver-580-server-open".

    `open` is the variant with open kernel modules, which GPUs since Blackwell need; `server` the
    branch for data centres; `distro` that it is Ubuntu's own and not of a third party.
    """

    name: str
    branch: int | None
    open: bool
    server: bool
    recommended: bool
    free: bool
    distro: bool


@dataclass(frozen=True)
class Device:
    """An NVIDIA device for which there are drivers; None for what is not said."""

    pci_address: str | None
    pci_device_id: str | None
    modalias: str | None
    vendor: str | None
    model: str | None
    drivers: tuple[Driver, ...]


@dataclass(frozen=True)
class UbuntuDrivers:
    """The NVIDIA devices, and every driver offered for one of them, once each."""

    devices: tuple[Device, ...]
    drivers: tuple[Driver, ...]


@dataclass
class _Section:
    """What stands below one line of `== ... ==`."""

    title: str
    values: dict[str, str] = field(default_factory=dict)
    drivers: list[Driver] = field(default_factory=list)


def parse_ubuntu_drivers(text: str) -> UbuntuDrivers:
    """Read `ubuntu-drivers devices`; without an NVIDIA device there are no drivers.

    OutputError, with the line, for text that is not its output or a driver that cannot be read.
    """
    lines = read_lines(text)
    if not lines:
        raise OutputError("ubuntu-drivers printed nothing: it knows no device that needs a driver")
    sections = _sections(lines)
    if not any(section.values or section.drivers for section in sections):
        raise OutputError("this is no output of ubuntu-drivers devices", lines[0])
    devices = tuple(_device(section) for section in sections if _is_nvidia(section))
    return UbuntuDrivers(
        devices, tuple(dict.fromkeys(driver for device in devices for driver in device.drivers))
    )


def _sections(lines: list[Line]) -> list[_Section]:
    # Values above the first title are of an excerpt that begins inside a section.
    sections = [_Section("")]
    for line in lines:
        if match := _SECTION.match(line.text.strip()):
            sections.append(_Section(match[1]))
        elif match := _VALUE.match(line.text):
            if match[1] != "driver":
                sections[-1].values[match[1]] = match[2].strip()
            elif driver := _driver(match[2], line, line is lines[-1]):
                sections[-1].drivers.append(driver)
    return sections


def _driver(text: str, line: Line, last: bool) -> Driver | None:
    match = _DRIVER.fullmatch(text.strip())
    if match is None and last:
        return None  # The output is cut here.
    if match is None:
        raise OutputError("this is no driver as ubuntu-drivers prints it", line)
    branch = _BRANCH.fullmatch(match["name"])
    return Driver(
        name=match["name"],
        branch=int(branch[1]) if branch else None,
        open=branch is not None and match["name"].endswith("-open"),
        server=branch is not None and "-server" in match["name"],
        recommended="recommended" in match["words"],
        free=match["license"] == "free",
        distro=match["source"] == "distro",
    )


def _is_nvidia(section: _Section) -> bool:
    """By the vendor's id; by words only where an excerpt leaves the id out."""
    device_id = _device_id(section)
    if device_id is not None:
        return device_id.startswith(_NVIDIA_ID)
    names = [section.values.get("vendor", ""), *(driver.name for driver in section.drivers)]
    return any(word.lower().startswith("nvidia") for word in names)


def _device(section: _Section) -> Device:
    address = _ADDRESS.search(section.title)
    return Device(
        pci_address=address[1] if address else None,
        pci_device_id=_device_id(section),
        modalias=section.values.get("modalias"),
        vendor=section.values.get("vendor"),
        model=section.values.get("model"),
        drivers=tuple(section.drivers),
    )


def _device_id(section: _Section) -> str | None:
    match = _MODALIAS.match(section.values.get("modalias", ""))
    return f"{match[1]}:{match[2]}".lower() if match else None
