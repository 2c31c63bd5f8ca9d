"""Replicas that the watchdog has stopped until a person lifts their quarantine. Pure."""

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from roles.host import paths

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
# The file of each one in a line, its name first.
SCRIPT = f"""cd {paths.QUARANTINE} && for file in *.json; do
[ -f "$file" ] && printf '%s %s\\n' "$file" "$(tr -d '\\n' <"$file" | head -c 4000)"
done"""


@dataclass(frozen=True)
class Quarantine:
    """A replica that is stopped: since when, why, and the GPUs that it had, in words."""

    replica: str
    reason: str
    date: str = ""
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        since = f" since {self.date}" if self.date else ""
        gpus = f" (GPU {'; '.join(self.gpus)})" if self.gpus else ""
        return f"{self.replica} is quarantined{since}{gpus}: {self.reason}"


def parse_quarantines(lines: Iterable[str]) -> tuple[Quarantine, ...]:
    """The quarantines of a host; one whose file is damaged is one all the same."""
    return tuple(_quarantine(line) for line in lines if line.strip())


def _quarantine(line: str) -> Quarantine:
    file, _, text = line.partition(" ")
    name = file.removesuffix(".json")
    if not NAME.fullmatch(name):
        raise ValueError(f"not a quarantined replica: {file[:80]!r}")
    try:
        about = json.loads(text)
        names = about["gpu_names"] or [str(gpu) for gpu in about["gpus"]]
        return Quarantine(name, str(about["reason"]), str(about["date"]), tuple(map(str, names)))
    except (ValueError, LookupError, TypeError, RecursionError):
        return Quarantine(name, "its file cannot be read")


def lift_script(name: str) -> str:
    """Let a replica start again, and start it."""
    file, unit = f"{paths.QUARANTINE}/{name}.json", paths.unit_name(name)
    lines = [
        "set -e",
        f"rm -f {shlex.quote(file)}",
        f"systemctl reset-failed {shlex.quote(unit)} || true",
        f"systemctl start {shlex.quote(unit)}",
    ]
    return "\n".join(lines)
