"""Whether a host that was told to reboot is back, and what was seen of it meanwhile. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from roles.host import paths

# What systemd calls a system that is up (systemctl's is-system-running). All else is a boot that is
# not done, or a systemd that does not answer yet.
SETTLED = ("running", "degraded", "maintenance")

# One line each: which boot this is, how far it is, what it waits for, and who serves.
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
    """One look at a host: its boot's id, systemd's state, units that systemd waits for, and the
    units of replicas that are active."""

    boot_id: str
    system: str = "running"
    jobs: tuple[str, ...] = ()
    replicas: tuple[str, ...] = ()


def parse_boot(lines: Sequence[str]) -> Boot:
    """Read the output of `BOOT_COMMAND`; ValueError where it has no boot id."""
    found: dict[str, list[str]] = {"boot": [], "system": [], "job": [], "unit": []}
    for line in lines:
        kind, _, value = line.strip().partition(" ")
        if kind in found and value.strip():
            found[kind].append(value.strip())
    if not found["boot"]:
        raise ValueError("the host does not say which boot it is in: /proc is not readable")
    names = [paths.replica_name(unit) for unit in found["unit"]]
    system = found["system"][0] if found["system"] else "nothing"
    return Boot(found["boot"][0], system, tuple(found["job"]), tuple(names))


@dataclass
class RebootWatch:
    """What was seen of a host since it was told to reboot; `seconds` counts from then on."""

    boot_id_before: str
    observations: list[tuple[float, str]] = field(default_factory=list)

    def is_back(self, seconds: float, look: Boot | str) -> bool:
        """Take a look (or why there was none) into account; True once another boot has settled."""
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
        """The last things that were seen, each with when it began."""
        observations = [
            f"after {seconds:.0f} s: {state}" for seconds, state in self.observations[-3:]
        ]
        return "; ".join(observations) or "nothing was seen of it"

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
    """Look again and again until the host is back; False once the time is over."""
    start = clock()
    while (elapsed_s := clock() - start) < timeout_s:
        if waiting.is_back(elapsed_s, look()):
            return True
        sleep(interval_s)
    return False
