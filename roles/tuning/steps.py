"""The changes to a host's tuning, and the problems that prevent them. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from roles.host import HostFile, changed_files, paths
from roles.tuning.mig_cards import by_size
from roles.tuning.render import SCRIPT, UNIT, gpu_files
from roles.tuning.settings import TuningSettings
from roles.tuning.state import GpuTuning, HostTuning

# Shared memory for NCCL and the processes of an engine on several GPUs: 10 to 20 GiB are
# recommended (docker --shm-size=10g in the engines' own documentation).
TOGETHER_MIB = 10 * 1024
# A driver reports limits in hundredths of a watt.
_SAME_W = 0.5


@dataclass(frozen=True)
class Steps:
    """The changes to a host; any of `problems` prevents all of them.

    `shm_mib` is the new size of /dev/shm, `fstab_mib` the size to write for the next boot; None
    means no change. `files` are the required files for the GPUs, `changed` those that differ,
    `absent` the paths to remove. `apply`: the unit must run. `restore` are the default watts to set
    again, by GPU index.
    """

    problems: tuple[str, ...] = ()
    shm_mib: int | None = None
    fstab_mib: int | None = None
    files: tuple[HostFile, ...] = ()
    changed: tuple[HostFile, ...] = ()
    absent: tuple[str, ...] = ()
    apply: bool = False
    restore: tuple[tuple[int, float], ...] = ()

    @property
    def descriptions(self) -> tuple[str, ...]:
        """A description of each change; empty if there is none."""
        changes = []
        if self.shm_mib or self.fstab_mib:
            changes.append(f"/dev/shm {self.shm_mib or self.fstab_mib} MiB")
        if self.apply:
            changes.append("GPU settings now and at boot")
        elif self.absent:
            changes.append("no GPU settings at boot")
        if self.restore:
            changes.append(f"power limit {', '.join(f'{w:g} W' for _, w in self.restore)}")
        return tuple(changes)


def steps(settings: TuningSettings, state: HostTuning, gpus_together: int) -> Steps:
    """What to change on a host whose largest replica has `gpus_together` GPUs."""
    files = tuple(gpu_files(settings))
    changed = tuple(changed_files(files, state.files))
    wanted_mib = shm_wanted_mib(settings.dev_shm_gib, gpus_together, state.ram_mib)
    problems = [*_shm_problems(settings, state, wanted_mib), *_gpu_problems(settings, state)]
    if problems:
        return Steps(problems=tuple(problems))
    grows = state.shm_mib is not None and state.shm_mib < wanted_mib
    boots_smaller = state.shm_boot_mib is not None and state.shm_boot_mib < wanted_mib
    is_removed = settings.power_limit_w is None and state.power_set_w is not None
    return Steps(
        shm_mib=wanted_mib if grows else None,
        fstab_mib=wanted_mib if boots_smaller or (grows and state.shm_boot_mib is None) else None,
        files=files,
        changed=changed,
        absent=tuple(path for path in (UNIT, SCRIPT) if path in state.files) if not files else (),
        apply=bool(files) and (bool(changed) or not state.unit_up or _gpus_differ(settings, state)),
        restore=tuple(_restored(state)) if is_removed else (),
    )


def shm_wanted_mib(dev_shm_gib: int | None, gpus_together: int, ram_mib: int) -> int:
    """The minimum size of /dev/shm in MiB, from the setting or by default; 0 if any size is
    enough."""
    if dev_shm_gib is not None:
        return dev_shm_gib * 1024
    return min(TOGETHER_MIB, ram_mib // 2) if gpus_together > 1 else 0


def _shm_problems(settings: TuningSettings, state: HostTuning, wanted_mib: int) -> Iterator[str]:
    if wanted_mib > state.ram_mib:
        yield (
            f"tuning.dev_shm_gib: {settings.dev_shm_gib} is more than the host's memory "
            f"({state.ram_mib / 1024:.0f} GiB); make it less"
        )
    if settings.dev_shm_gib and state.shm_mib is None:
        yield "/dev/shm is no file system of its own here; mount a tmpfs there (systemd does)"


def _gpu_problems(settings: TuningSettings, state: HostTuning) -> Iterator[str]:
    if settings.power_limit_w is None and not settings.mig:
        return
    if state.gpus is None:
        name = "power_limit_w" if settings.power_limit_w is not None else "mig"
        yield f"tuning.{name}: nvidia-smi, which sets it, does not answer here; leave it out"
        return
    if settings.power_limit_w is not None:
        for gpu in state.gpus:
            yield from _power_problems(settings.power_limit_w, gpu)
    by_index = {gpu.index: gpu for gpu in state.gpus}
    for index, profiles in sorted((settings.mig or {}).items()):
        gpu = by_index.get(index)
        if gpu is None:
            yield (
                f"tuning.mig: there is no GPU {index}; the host has {', '.join(map(str, by_index))}"
            )
        elif gpu.users and gpu.profiles != by_size(profiles):
            yield (
                f"tuning.mig: GPU {index} ({gpu.name}) cannot be sliced while processes use it: "
                f"{', '.join(gpu.users)}; drain the host, stop them (systemctl stop "
                f"'{paths.UNIT_GLOB}'), and run again"
            )


def _power_problems(power_limit_w: int, gpu: GpuTuning) -> Iterator[str]:
    where = f"tuning.power_limit_w: GPU {gpu.index} ({gpu.name})"
    if gpu.power_limit_w is None or gpu.power_min_w is None or gpu.power_max_w is None:
        yield f"{where} has no power limit that can be set; leave it out"
    elif not gpu.power_min_w <= power_limit_w <= gpu.power_max_w:
        yield (
            f"{where} takes {gpu.power_min_w:g} to {gpu.power_max_w:g} W, not {power_limit_w} W; "
            "choose within"
        )


def _gpus_differ(settings: TuningSettings, state: HostTuning) -> bool:
    """Whether a GPU differs from the settings."""
    power, mig = settings.power_limit_w, settings.mig or {}
    for gpu in state.gpus or ():
        if power is not None and abs((gpu.power_limit_w or 0) - power) > _SAME_W:
            return True
        if gpu.index in mig and gpu.profiles != by_size(mig[gpu.index]):
            return True
    return False


def _restored(state: HostTuning) -> Iterator[tuple[int, float]]:
    for gpu in state.gpus or ():
        if gpu.power_limit_w is None or gpu.power_default_w is None:
            continue
        if abs(gpu.power_limit_w - gpu.power_default_w) > _SAME_W:
            yield gpu.index, gpu.power_default_w
