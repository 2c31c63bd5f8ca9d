"""What of our replicas runs on a host, in one command."""

from typing import Any

from pyinfra.api import FactBase

from roles.host.facts import FileStates, parse_state
from roles.launch.state import LaunchState

APPLIED = "/var/lib/llm/applied"


class Launched(FactBase[LaunchState]):
    """Files, units, digests and firewall of launch on a host, in one command."""

    @staticmethod
    def default() -> LaunchState:
        return LaunchState()

    def command(self, paths: list[str]) -> str:
        return (
            f"{{ {FileStates().command(paths)}; }} | sed 's/^/file /'; "
            'echo "engine $(basename "$(readlink /opt/llm/engines/current)" 2>/dev/null)"; '
            "for unit in $({ systemctl list-units --all --plain --no-legend 'llm-engine@*'; "
            "ls /etc/systemd/system/multi-user.target.wants 2>/dev/null | grep '^llm-engine@'; } "
            "| awk '{print $1}' | sort -u); do "
            'name=${unit#llm-engine@}; echo "unit ${name%.service} '
            '$(systemctl is-active "$unit") $(systemctl is-enabled "$unit" 2>/dev/null)"; done; '
            f"cd {APPLIED} 2>/dev/null && for f in *; do "
            '[ -f "$f" ] && echo "applied $f $(cat "$f")"; done; '
            "nft list table inet pyinfra_llm >/dev/null 2>&1 "
            "&& systemctl is-enabled --quiet llm-firewall && echo firewall; true"
        )

    def process(self, output: list[str]) -> LaunchState:
        found: dict[str, Any] = {"file": {}, "unit": {}, "applied": {}}
        engine, firewall = None, False
        for line in output:
            kind, _, rest = line.partition(" ")
            if kind == "file":
                path, state = parse_state(rest)
                found["file"][path] = state
            elif kind in ("unit", "applied"):
                name, _, value = rest.partition(" ")
                found[kind][name] = value.strip()
            elif kind == "engine":
                engine = rest or None
            elif kind == "firewall":
                firewall = True
        return LaunchState(found["file"], engine, found["unit"], found["applied"], firewall)


class NotServing(FactBase[str]):
    """Why a replica does not serve, with its log; "" once all do. The program is the `_stdin`."""

    @staticmethod
    def default() -> str:
        return ""

    def command(self) -> str:
        return "python3 - 2>&1 || true"

    def process(self, output: list[str]) -> str:
        return "\n".join(output)
