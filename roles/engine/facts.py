"""What of an engine is on a host."""

import shlex
from dataclasses import dataclass

from pyinfra.api import FactBase

from roles.engine.install import COMPLETE, CURRENT, ENGINES


@dataclass(frozen=True)
class Installed:
    """Whole versions on the host (oldest first), the one in use, and missing system packages."""

    versions: tuple[str, ...] = ()
    current: str | None = None
    missing_packages: tuple[str, ...] = ()


class InstalledEngines(FactBase[Installed]):
    """Installed versions and missing packages of the distribution, in one command."""

    @staticmethod
    def default() -> Installed:
        return Installed()

    def command(self, packages: list[str]) -> str:
        wanted = " ".join(shlex.quote(package) for package in packages)
        return (
            f"for p in {wanted}; do "
            "dpkg-query -W -f='${Status}' \"$p\" 2>/dev/null | grep -q ' installed$' "
            '|| echo "missing $p"; done; '
            f"cd {ENGINES} 2>/dev/null && ls -tr */{COMPLETE} 2>/dev/null "
            "| sed 's,^,version ,;s,/.*,,'; "
            f'echo "current $(readlink {CURRENT} 2>/dev/null)"'
        )

    def process(self, output: list[str]) -> Installed:
        found: dict[str, list[str]] = {"missing": [], "version": [], "current": []}
        for line in output:
            kind, _, value = line.partition(" ")
            if value and kind in found:
                found[kind].append(value.rsplit("/", 1)[-1])
        current = found["current"][0] if found["current"] else None
        return Installed(tuple(found["version"]), current, tuple(found["missing"]))
