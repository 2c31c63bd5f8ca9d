"""All checks of one host, in the order of the report. Pure."""

from roles.checks import Check
from roles.hardware import HardwareReport
from roles.host import Part
from roles.preflight.access_checks import access_checks
from roles.preflight.answers import PreflightAnswers
from roles.preflight.context import CheckContext
from roles.preflight.disk_checks import disk_checks, folders
from roles.preflight.gpu_checks import gpu_checks
from roles.preflight.needs import HostNeeds, all_packages
from roles.preflight.network_checks import driver_urls, network_checks, urls
from roles.preflight.questions import Questions, parts_of, url_part
from roles.preflight.system_checks import system_checks

_AREAS = (system_checks, disk_checks, network_checks, gpu_checks, access_checks)


def checks(
    answers: PreflightAnswers,
    report: HardwareReport,
    needs: HostNeeds,
    clock_difference_s: float | None = None,
) -> tuple[Check, ...]:
    """All checks that apply to a host, given what it is needed for."""
    context = CheckContext(answers, report, needs, clock_difference_s)
    return tuple(dict.fromkeys(check for area in _AREAS for check in area(context)))


def parts(needs: HostNeeds) -> tuple[Part, ...]:
    """The parts of the question that these checks need, beside those of hardware and driver."""
    return parts_of(questions(needs))


def follow_up_parts(report: HardwareReport, needs: HostNeeds) -> tuple[Part, ...]:
    """The parts of a second question, which need the host's report; none where the run installs no
    driver."""
    found = driver_urls(report, needs)
    engine = needs.installed_engine
    return (url_part(found, engine.pythons if engine else ()),) if found else ()


def questions(needs: HostNeeds) -> Questions:
    """What the scripts look up on a host that has these needs."""
    engine = needs.installed_engine
    weights = engine.weights if engine else ()
    return Questions(
        pythons=engine.pythons if engine else (),
        engine=" ".join(engine.folders) if engine else "",
        wheel_folders=engine.wheel_folders if engine else (),
        folders=folders(needs),
        packages=tuple(all_packages(needs)),
        hub_folders=tuple(one.kept_in for one in weights if one.kept_in),
        weights_folders=(
            *(one.source for one in weights if not one.hub_folder),
            *(engine.adapters if engine else ()),
        ),
        urls=urls(needs),
        sites=needs.balancer.sites if needs.balancer else {},
    )


def clock_difference(asked_at: float, answered_at: float, answers: PreflightAnswers) -> float:
    """The host's clock minus this machine's in seconds, 0 where the host's may be right.

    The host took its first time after `asked_at` and its last before `answered_at`, to a second.
    Only a time outside these bounds is a difference; inside them the network may explain it.
    """
    least, most = answers.clock_end - answered_at, answers.clock + 1 - asked_at
    if least > 0:
        return least
    return most if most < 0 else 0.0
