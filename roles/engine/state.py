"""What of engines is on a host, as a part of the one question to it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from roles.engine.install import COMPLETE
from roles.host.paths import ENGINES
from roles.host.question import Part, Sections, require

SCRIPT = f"""part missing
for p; do
dpkg-query -W -f='${{Status}}' "$p" | grep -q ' installed$' || echo "$p"; done
part versions
# Links are no versions of their own.
find {ENGINES} -mindepth 2 -maxdepth 2 -name {COMPLETE} -printf '%h\\n'
"""


@dataclass(frozen=True)
class Installed:
    """Whole versions on the host, and missing packages of the distribution."""

    versions: tuple[str, ...] = ()
    missing_packages: tuple[str, ...] = ()


def part(packages: Iterable[str]) -> Part:
    """The question for whole versions, and which of these packages of the distribution lack."""
    return Part("engines", SCRIPT, arguments=tuple(packages))


def parse_installed(sections: Sections) -> Installed:
    """Read the sections of `part`; ValueError where they are not all there: an engine that
    replicas run from must never be taken for one that is to be installed."""
    require(sections, ("missing", "versions"), "its engines")
    versions = sections["versions"].split()
    return Installed(
        tuple(path.rsplit("/", 1)[-1] for path in versions),
        tuple(sections["missing"].split()),
    )
