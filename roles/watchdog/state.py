"""The watchdog as it is on a host: the questions to it, and the parser of its answers. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from roles.host import Part, Sections, parse_states, paths, require
from roles.watchdog.quarantine import SCRIPT, Quarantine, parse_quarantines
from roles.watchdog.render import FILES
from roles.watchdog.settings import USER

_UNITS = f"{paths.WATCHDOG_UNIT} {paths.WATCHDOG_SOCKET_UNIT}"
PART = Part(
    "watchdog",
    f"""part files; file_states "$@"
part units; systemctl is-active {_UNITS}; systemctl is-enabled {_UNITS}
part user; id -u {USER}
part quarantined; {SCRIPT}
""",
    arguments=FILES,
)


@dataclass(frozen=True)
class WatchdogState:
    """The watchdog on a host: the states of its files, whether it runs and starts at boot, whether
    its user is there, and the replicas that are quarantined."""

    files: Mapping[str, str] = field(default_factory=dict)
    up: bool = False
    user: bool = False
    quarantines: tuple[Quarantine, ...] = ()


def parse_state(sections: Sections) -> WatchdogState:
    """Read the sections of `PART`; ValueError where they are malformed or incomplete."""
    require(sections, ("files", "units", "user", "quarantined"), "its watchdog")
    return WatchdogState(
        files=parse_states(sections["files"].splitlines()),
        up=sections["units"].split() == ["active", "active", "enabled", "enabled"],
        user=sections["user"].strip().isdigit(),
        quarantines=parse_quarantines(sections["quarantined"].splitlines()),
    )
