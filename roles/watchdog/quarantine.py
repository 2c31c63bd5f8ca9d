"""Replicas that the watchdog has stopped until a person lifts their quarantine. Pure."""

import json
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from roles.host import paths

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
# The file of each one in a line, its name first.
SCRIPT = f"""cd {paths.QUARANTINE} && for file in *.json; do
[ -f "$file" ] && printf '%s %s\\n' "$file" "$(tr -d '\\n' <"$file" | head -c 4000)"
done"""


@dataclass(frozen=True)
class Quarantine:
    """A replica that is stopped: since when, why, and the GPUs that it had, in words and by their
    indexes."""

    replica: str
    reason: str
    date: str = ""
    gpus: tuple[str, ...] = ()
    indexes: tuple[int, ...] = ()

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
        return Quarantine(
            name,
            str(about["reason"]),
            str(about["date"]),
            tuple(map(str, names)),
            tuple(map(int, about["gpus"])),
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        return Quarantine(name, "its file cannot be read")


def left_out(
    replicas: Mapping[str, Collection[int]], quarantines: Iterable[Quarantine]
) -> dict[str, Quarantine]:
    """The planned replicas of a host that must not start, by name, with the quarantine that says
    why: they have its name, or one of its GPUs. `replicas` are the GPUs by name."""
    return {
        name: one
        for one in quarantines
        for name, gpus in replicas.items()
        if name == one.replica or set(gpus) & set(one.indexes)
    }


def lift_script(name: str) -> str:
    """Let a replica start again, and start it, if it is still there."""
    file, unit = f"{paths.QUARANTINE}/{name}.json", paths.unit_name(name)
    current = f"{paths.REPLICAS}/{name}/current"
    lines = [
        "set -e",
        f"rm -f {shlex.quote(file)}",
        f"systemctl reset-failed {shlex.quote(unit)} || true",
        f"[ ! -e {shlex.quote(current)} ] || systemctl start {shlex.quote(unit)}",
    ]
    return "\n".join(lines)
