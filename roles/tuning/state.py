"""What tuning finds on a host, read from one script's output."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roles.hardware import OutputError, parse_smi_list
from roles.tuning.mig_cards import by_size

SCRIPT = Path(__file__).with_name("state.sh").read_text(encoding="utf-8")
_FSTAB_UNITS = {"": 1 / 1024**2, "k": 1 / 1024, "m": 1, "g": 1024, "t": 1024**2}


@dataclass(frozen=True)
class GpuState:
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
class TuningState:
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
    gpus: tuple[GpuState, ...] | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def parse_state(lines: Sequence[str], files: Mapping[str, str]) -> TuningState:
    """Read the output of `SCRIPT`; ValueError where it is not that."""
    parts = _parts(lines)
    if missing := {"memory", "shm", "fstab", "unit", "power-set"} - set(parts):
        raise ValueError(f"the host's settings are cut short: {', '.join(sorted(missing))} missing")
    ram = re.search(r"MemTotal:\s+([0-9]+) kB", parts["memory"])
    if ram is None:
        raise ValueError("the host does not say how much memory it has")
    ram_mib = int(ram[1]) // 1024
    shm = re.match(r"\S+\s+([0-9]+)\s", parts["shm"])
    power = parts["power-set"].strip()
    return TuningState(
        ram_mib=ram_mib,
        shm_mib=int(shm[1]) // 1024 if shm else None,
        shm_boot_mib=_boot_size(parts["fstab"], ram_mib),
        unit_up=parts["unit"].split() == ["active", "enabled"],
        power_set_w=int(power) if power.isdigit() else None,
        gpus=_gpus(parts),
        files=files,
    )


def _parts(lines: Sequence[str]) -> dict[str, str]:
    texts: dict[str, list[str]] = {}
    label = None
    for line in lines:
        if line.startswith("@@ "):
            label = line.removeprefix("@@ ").strip()
            texts[label] = []
        elif label:
            texts[label].append(line)
    return {label: "\n".join(text).strip("\n") for label, text in texts.items()}


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


def _gpus(parts: Mapping[str, str]) -> tuple[GpuState, ...] | None:
    rows = [
        [cell.strip() for cell in line.split(",")] for line in parts.get("gpus", "").splitlines()
    ]
    rows = [row for row in rows if len(row) == 7 and row[0].isdigit()]
    if not rows:
        return None
    slices, parents = _slices(parts.get("list", ""))
    users = _users(parts.get("apps", ""), parents)
    return tuple(
        GpuState(
            int(index),
            name,
            *(_watts(cell) for cell in watts),
            profiles=slices.get(int(index), ()),
            users=tuple(users.get(uuid, ())),
        )
        for index, uuid, name, *watts in rows
    )


def _slices(text: str) -> tuple[dict[int, tuple[str, ...]], dict[str, str]]:
    """Each GPU's profiles by its index, and the UUID of the GPU that a slice is of by its own."""
    try:
        listed = parse_smi_list(text).gpus
    except OutputError:
        return {}, {}
    profiles = {
        gpu.index: by_size([device.profile for device in gpu.mig_devices if device.profile])
        for gpu in listed
        if gpu.index is not None
    }
    parents = {
        device.uuid: gpu.uuid
        for gpu in listed
        for device in gpu.mig_devices
        if device.uuid and gpu.uuid
    }
    return profiles, parents


def _users(text: str, parents: Mapping[str, str]) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",", 2)]
        if len(cells) == 3 and cells[1].isdigit():
            gpu = parents.get(cells[0], cells[0])
            users.setdefault(gpu, []).append(f"pid {cells[1]} ({cells[2]})")
    return users


def _watts(cell: str) -> float | None:
    return float(cell) if re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", cell) else None
