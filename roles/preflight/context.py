"""One host's case: what it said, what is needed of it; and how its checks end."""

from collections.abc import Iterable
from dataclasses import dataclass

from roles.checks import Check
from roles.hardware import HardwareReport
from roles.preflight.answers import PreflightAnswers
from roles.preflight.needs import EngineHost, HostNeeds

MIB, GIB = 2**20, 2**30
# A check that is shown though it passed.
DRIVER_INSTALLATION = "driver-installation"


@dataclass(frozen=True)
class CheckContext:
    """All that checks look at. `clock_difference_s` is the host's clock less this machine's."""

    answers: PreflightAnswers
    report: HardwareReport
    needs: HostNeeds
    clock_difference_s: float | None = None

    @property
    def engine(self) -> EngineHost | None:
        """What engines need, if some are planned here and the run installs them."""
        return self.needs.installed_engine

    @property
    def os_name(self) -> str:
        """The distribution's ID: debian, ubuntu, rhel, rocky …"""
        return self.report.system.os.partition(" ")[0]

    @property
    def os_version(self) -> str:
        """Its VERSION_ID, "" where it has none."""
        return self.report.system.os.partition(" ")[2]

    @property
    def packages_missing(self) -> tuple[str, ...]:
        """Packages of the distribution that a deploy will install."""
        return self.answers.missing_packages or ()

    @property
    def must_install_engine(self) -> bool:
        """Whether the engine's version is not there yet."""
        return self.engine is not None and not self.answers.engine_installed


def ok(name: str, seen: str) -> Check:
    """Nothing to do."""
    return Check(name, "", "pass", seen)


def skipped(name: str, why: str) -> Check:
    """Not seen, or of no matter here."""
    return Check(name, "", "skipped", why)


def warning(name: str, seen: str, remedy: str) -> Check:
    """To be known; a deploy goes on."""
    return Check(name, "", "warn", seen, remedy)


def stop(name: str, seen: str, remedy: str) -> Check:
    """A deploy would fail."""
    return Check(name, "", "fail", seen, remedy)


def unique_names(names: Iterable[str]) -> list[str]:
    """Names of checks, each once: the first keeps its own, the others have a number."""
    counts: dict[str, int] = {}
    found = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        found.append(f"{name}-{counts[name]}" if counts[name] > 1 else name)
    return found


def format_bytes(number: float) -> str:
    """Bytes for a person."""
    for unit, bytes_ in (("TiB", 2**40), ("GiB", GIB), ("MiB", MIB)):
        if number >= bytes_:
            return f"{number / bytes_:.1f} {unit}"
    return f"{number / 1024:.0f} KiB"


def format_version(version: tuple[int, ...]) -> str:
    """(3, 11) as 3.11."""
    return ".".join(map(str, version))
