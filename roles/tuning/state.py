"""What tuning finds on a host: its part of the one question, read into one object. Pure."""

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
    """What is set on one GPU: watts (None where the card has no such limit) and its slices.

    `users` are the processes on it, as a person reads them.
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

    `shm_mib` is the size of /dev/shm, None where it is no mount of its own; `shm_boot_mib` the one
    that its line in fstab gives it at boot, None where it has none. `power_set_w` is the limit that
    an earlier deploy set. `unit_up` says whether the unit has run and runs at boot. `files` are the
    states of tuning's files; `gpus` is None where no driver answers.
    """

    ram_mib: int
    shm_mib: int | None
    shm_boot_mib: int | None = None
    unit_up: bool = False
    power_set_w: int | None = None
    gpus: tuple[GpuTuning, ...] | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def parse_state(sections: Sections, report: HardwareReport) -> HostTuning:
    """Read a host's answer to `PART`, beside what its hardware's says; ValueError where it is cut
    short, could not be asked as root, or does not tell the host's memory."""
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
    """The size in the last line of fstab for it; half of the memory where that says none."""
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
    """What NVIDIA's driver says of each GPU; None where it does not answer."""
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
