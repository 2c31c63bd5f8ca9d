"""The tuning of a host: the questions to it, and the parser of its answers. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from roles.hardware import HardwareReport, readings
from roles.host import Part, Sections, parse_states, require
from roles.tuning.mig_cards import by_size
from roles.tuning.render import SCRIPT, UNIT, UNIT_NAME

PART = Part(
    "tuning",
    Path(__file__).with_name("ask.sh").read_text(encoding="utf-8"),
    root=True,
    arguments=(SCRIPT, UNIT_NAME, SCRIPT, UNIT),
)
_FSTAB_UNITS = {"": 1 / 1024**2, "k": 1 / 1024, "m": 1, "g": 1024, "t": 1024**2}


@dataclass(frozen=True)
class GpuTuning:
    """The power limits (None if the card has none) and slices of one GPU.

    `users` describe the processes on it.
    """

    index: int
    name: str
    power_limit_w: float | None = None
    power_default_w: float | None = None
    power_min_w: float | None = None
    power_max_w: float | None = None
    profiles: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostTuning:
    """A host before it is tuned.

    `shm_mib` is the size of /dev/shm, None if it is not a mount. `shm_boot_mib` is its size at boot
    from fstab, None without a line there. `power_set_w` is the limit that an earlier deploy set.
    `unit_up`: the unit has run, and runs at boot. `files` are the states of tuning's files. `gpus`
    is None if no driver answers.
    """

    ram_mib: int
    shm_mib: int | None
    shm_boot_mib: int | None = None
    unit_up: bool = False
    power_set_w: int | None = None
    gpus: tuple[GpuTuning, ...] | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def parse_state(sections: Sections, report: HardwareReport) -> HostTuning:
    """Parse a host's answer to `PART`, together with its hardware's report.

    ValueError if the answer is cut short, could not be asked as root, or lacks the host's
    memory."""
    require(sections, ("fstab", "unit", "power-set", "files"), "its settings")
    host, power = report.system, sections["power-set"].strip()
    if host.ram_mib is None:
        raise ValueError("the host does not say how much memory it has")
    return HostTuning(
        ram_mib=host.ram_mib,
        shm_mib=host.dev_shm_mib if host.dev_shm_mounted else None,
        shm_boot_mib=_boot_size(sections["fstab"], host.ram_mib),
        unit_up=sections["unit"].split() == ["active", "enabled"],
        power_set_w=int(power) if re.fullmatch("[0-9]{1,9}", power) else None,
        gpus=_gpus(report),
        files=parse_states(sections["files"].splitlines()),
    )


def _boot_size(text: str, ram_mib: int) -> int | None:
    """The size of /dev/shm in its last line of fstab; half of the memory if the line has no
    size."""
    if not text.strip():
        return None
    columns = text.strip().splitlines()[-1].split()
    options = columns[3].split(",") if len(columns) > 3 else []
    sizes = [option.removeprefix("size=") for option in options if option.startswith("size=")]
    size = re.fullmatch(r"([0-9]{1,18})([kmgt%]?)", sizes[-1].lower()) if sizes else None
    if size is None:
        return ram_mib // 2
    if size[2] == "%":
        return ram_mib * int(size[1]) // 100
    return int(int(size[1]) * _FSTAB_UNITS[size[2]])


def _gpus(report: HardwareReport) -> tuple[GpuTuning, ...] | None:
    """Each GPU's limits and slices from NVIDIA's driver; None if it does not answer."""
    answers = report.answers
    if not answers.gpus:
        return None
    profiles = {
        gpu.index: by_size([device.profile for device in gpu.mig_devices if device.profile])
        for gpu in answers.slices
    }
    users = readings.processes_by_gpu(answers.processes, answers.slices, answers.gpus)
    return tuple(
        GpuTuning(
            gpu.index,
            gpu.name or "",
            gpu.power_limit_w,
            gpu.power_default_w,
            gpu.power_min_w,
            gpu.power_max_w,
            profiles=profiles.get(gpu.index, ()),
            users=tuple(
                f"pid {one.pid or '?'} ({one.name or '?'})" for one in users.get(gpu.index, ())
            ),
        )
        for gpu in answers.gpus
        if gpu.index is not None
    )
