"""The files that set a host's GPUs, now and after each reboot. Pure."""

from pathlib import Path

import jinja2

from roles.host import HostFile, paths
from roles.tuning.mig_cards import by_size
from roles.tuning.settings import TuningSettings

TEMPLATES = Path(__file__).parents[2] / "templates"
UNIT_NAME = paths.GPU_SETTINGS_UNIT
UNIT = f"{paths.UNITS}/{UNIT_NAME}"
SCRIPT = paths.GPU_SETTINGS


def gpu_files(settings: TuningSettings) -> list[HostFile]:
    """The unit and its script; empty if no GPU setting is set."""
    if not settings.mig and settings.power_limit_w is None:
        return []
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    mig = [(gpu, by_size(profiles)) for gpu, profiles in sorted((settings.mig or {}).items())]
    script = jinja.get_template("systemd/gpu-settings.sh.j2").render(
        mig=mig, power_limit_w=settings.power_limit_w
    )
    unit = jinja.get_template("systemd/llm-gpu-settings.service.j2").render(script=SCRIPT)
    return [HostFile(SCRIPT, script, mode="755"), HostFile(UNIT, unit)]
