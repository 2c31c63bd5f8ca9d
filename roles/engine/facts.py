"""What of an engine is on a host."""

import shlex
from dataclasses import dataclass

from pyinfra.api import FactBase

from roles.engine.install import COMPLETE, ENGINES


@dataclass(frozen=True)
class Installed:
    """Whole versions on the host, and missing packages of the distribution."""

    versions: tuple[str, ...] = ()
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
            # Not through `current`: a link is no version of its own.
            f"find {ENGINES} -mindepth 2 -maxdepth 2 -name {COMPLETE} -printf 'version %h\\n' "
            "2>/dev/null; "
            "echo asked"
        )

    def process(self, output: list[str]) -> Installed:
        found: dict[str, list[str]] = {"missing": [], "version": []}
        for line in output:
            kind, _, value = line.partition(" ")
            if value and kind in found:
                found[kind].append(value.rsplit("/", 1)[-1])
        return Installed(tuple(found["version"]), tuple(found["missing"]))
