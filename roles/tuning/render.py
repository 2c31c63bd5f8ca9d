"""The files that set a host's GPUs, now and after each reboot. Pure."""

from roles.host import HostFile, paths
from roles.host.templates import render
from roles.tuning.mig_cards import by_size
from roles.tuning.settings import TuningSettings

UNIT_NAME = paths.GPU_SETTINGS_UNIT
UNIT = f"{paths.UNITS}/{UNIT_NAME}"
SCRIPT = paths.GPU_SETTINGS


def gpu_files(settings: TuningSettings) -> list[HostFile]:
    """The unit and its script; empty if no GPU setting is set."""
    if not settings.mig and settings.power_limit_w is None:
        return []
    mig = [(gpu, by_size(profiles)) for gpu, profiles in sorted((settings.mig or {}).items())]
    power_limit_w = settings.power_limit_w
    script = render("systemd/gpu-settings.sh.j2", mig=mig, power_limit_w=power_limit_w)
    unit = render("systemd/llm-gpu-settings.service.j2", script=SCRIPT)
    return [HostFile(SCRIPT, script, mode="755"), HostFile(UNIT, unit)]
