"""The engines on a host: the question to it, and the parser of its answer. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from roles.engine.deployment import Installation
from roles.engine.install import COMPLETE
from roles.host.paths import ENGINES
from roles.host.question import Part, Sections, require

SCRIPT = f"""part missing
for p; do
dpkg-query -W -f='${{Status}}' "$p" | grep -q ' installed$' || echo "$p"; done
part versions
# Links are not versions.
find {ENGINES} -mindepth 2 -maxdepth 2 -name {COMPLETE} -printf '%h\\n'
"""


@dataclass(frozen=True)
class Installed:
    """The complete versions on a host, and the missing packages of its distribution."""

    versions: tuple[str, ...] = ()
    missing_packages: tuple[str, ...] = ()


def missing_builds(
    installations: Iterable[Installation], state: Installed
) -> tuple[Installation, ...]:
    """The installations that a host lacks, one for each folder: builds may differ in settings of
    their replicas alone."""
    wanted = {one.version_name: one for one in installations}
    return tuple(one for name, one in wanted.items() if name not in state.versions)


def part(packages: Iterable[str]) -> Part:
    """The question for complete versions, and for which of these packages are missing."""
    return Part("engines", SCRIPT, arguments=tuple(packages))


def parse_installed(sections: Sections) -> Installed:
    """Parse the sections of `part`; ValueError if one is missing: an engine in use must never be
    taken for one that is not installed."""
    require(sections, ("missing", "versions"), "its engines")
    versions = sections["versions"].split()
    return Installed(
        tuple(path.rsplit("/", 1)[-1] for path in versions),
        tuple(sections["missing"].split()),
    )
