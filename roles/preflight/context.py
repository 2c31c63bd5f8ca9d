"""What the checks of one host look at, and functions that make their outcomes."""

from collections.abc import Iterable
from dataclasses import dataclass

from roles.checks import Check
from roles.hardware import HardwareReport
from roles.preflight.answers import PreflightAnswers
from roles.preflight.needs import EngineHost, HostNeeds

MIB, GIB = 2**20, 2**30
# This check is shown although it passes: it announces that a driver will be installed.
DRIVER_INSTALLATION = "driver-installation"
# A host that fails this check may be in the middle of a change.
OTHER_DEPLOY = "other-deploy"


@dataclass(frozen=True)
class CheckContext:
    """The input of every check of one host.

    `clock_difference_s` is the host's clock minus this machine's; None where it was not measured.
    """

    answers: PreflightAnswers
    report: HardwareReport
    needs: HostNeeds
    clock_difference_s: float | None = None

    @property
    def engine(self) -> EngineHost | None:
        """What the planned engines need; None where the run installs none on this host."""
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
        """The distribution's packages that a deploy will install."""
        return self.answers.missing_packages or ()

    @property
    def must_install_engine(self) -> bool:
        """Whether an engine of the plan is not installed yet."""
        return self.engine is not None and not self.answers.engine_installed


def ok(name: str, seen: str) -> Check:
    """A check that passed."""
    return Check(name, "", "pass", seen)


def skipped(name: str, why: str) -> Check:
    """A check that could not be made, or that does not matter here."""
    return Check(name, "", "skipped", why)


def warning(name: str, seen: str, remedy: str) -> Check:
    """A check with a warning: the deploy goes on."""
    return Check(name, "", "warn", seen, remedy)


def stop(name: str, seen: str, remedy: str) -> Check:
    """A failed check: a deploy on this host would fail."""
    return Check(name, "", "fail", seen, remedy)


def unique_names(names: Iterable[str]) -> list[str]:
    """The names of checks made unique: repeated ones get a number, from "-2" on."""
    counts: dict[str, int] = {}
    found = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        found.append(f"{name}-{counts[name]}" if counts[name] > 1 else name)
    return found


def format_bytes(number: float) -> str:
    """A number of bytes with its unit, such as "1.5 GiB"."""
    for unit, bytes_ in (("TiB", 2**40), ("GiB", GIB), ("MiB", MIB)):
        if number >= bytes_:
            return f"{number / bytes_:.1f} {unit}"
    return f"{number / 1024:.0f} KiB"


def format_version(version: tuple[int, ...]) -> str:
    """(3, 11) as 3.11."""
    return ".".join(map(str, version))
