"""Whether a host has come back from its reboot, and what was observed meanwhile. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from roles.host import paths

# States of a system that has finished its boot (systemctl is-system-running). In any other state it
# is still booting, or systemd does not answer yet.
SETTLED = ("running", "degraded", "maintenance")

# Prints a line each for: the boot's id, the system's state, jobs that systemd waits for, and units
# of replicas that are active.
BOOT_COMMAND = (
    "echo boot $(cat /proc/sys/kernel/random/boot_id); "
    "echo system $(timeout 10 systemctl is-system-running); "
    "timeout 10 systemctl list-jobs --no-legend --plain "
    '| awk \'$4 == "running" {print "job", $2}\'; '
    f"timeout 10 systemctl list-units --plain --no-legend --state=active '{paths.UNIT_GLOB}' "
    "| awk '{print \"unit\", $1}'"
)


@dataclass(frozen=True)
class Boot:
    """A host's boot at one moment: its id, systemd's state, jobs that systemd waits for, and the
    names of replicas that are active."""

    boot_id: str
    system: str = "running"
    jobs: tuple[str, ...] = ()
    replicas: tuple[str, ...] = ()


def parse_boot(lines: Sequence[str]) -> Boot:
    """Read the output of `BOOT_COMMAND`; ValueError if it has no boot id."""
    found: dict[str, list[str]] = {"boot": [], "system": [], "job": [], "unit": []}
    for line in lines:
        kind, _, value = line.strip().partition(" ")
        if kind in found and value.strip():
            found[kind].append(value.strip())
    if not found["boot"]:
        raise ValueError("the host reports no boot id: /proc is not readable")
    names = [paths.replica_name(unit) for unit in found["unit"]]
    system = found["system"][0] if found["system"] else "nothing"
    return Boot(found["boot"][0], system, tuple(found["job"]), tuple(names))


@dataclass
class RebootWatch:
    """What was observed of a host since it was told to reboot, with the seconds since then."""

    boot_id_before: str
    observations: list[tuple[float, str]] = field(default_factory=list)

    def is_back(self, seconds: float, look: Boot | str) -> bool:
        """Add an observation; returns whether the host has finished another boot.

        `look` is the host's boot, or why it could not be read.
        """
        if isinstance(look, Boot) and look.boot_id != self.boot_id_before:
            if look.system in SETTLED:
                return True
            self._note(seconds, f"it is booting ({_boot_state(look)})")
        elif isinstance(look, Boot):
            self._note(seconds, f"it is still in its old boot ({_boot_state(look)})")
        else:
            self._note(seconds, look)
        return False

    def last_seen(self) -> str:
        """The last three observations, each with the time when it began."""
        observations = [
            f"after {seconds:.0f} s: {state}" for seconds, state in self.observations[-3:]
        ]
        return "; ".join(observations) or "nothing"

    def _note(self, seconds: float, state: str) -> None:
        if not self.observations or self.observations[-1][1] != state:
            self.observations.append((seconds, state))


def _boot_state(look: Boot) -> str:
    jobs = f", waiting for {', '.join(look.jobs[:3])}" if look.jobs else ""
    return f"systemd says {look.system}{jobs}"


def wait(
    waiting: RebootWatch,
    look: Callable[[], Boot | str],
    timeout_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    interval_s: float = 2,
) -> bool:
    """Observe a host until it is back; False if `timeout_s` passes before."""
    start = clock()
    while (elapsed_s := clock() - start) < timeout_s:
        if waiting.is_back(elapsed_s, look()):
            return True
        sleep(interval_s)
    return False
