"""Whether GPUs are ready, by what a host reports after its driver stage."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from pyinfra.api import FunctionCommand
from pyinfra.context import ctx_host

from roles.checks import Check
from roles.driver import DriverSettings
from roles.fleet import Host
from roles.hardware import HardwareReport, declared_hardware, parse_report
from roles.hardware.facts import CudaStart
from roles.hardware.facts import HostReport as HostReportFact
from roles.stages.ready import in_words, ready
from roles.tuning import TuningSettings
from tests.unit.hardware.hosts import query, row, sections

DECLARED = Host(
    name="gpu1",
    roles=frozenset({"gpu_hosts"}),
    address="10.0.0.1",
    hardware=replace(declared_hardware("2x NVIDIA L40S"), driver_version="570.1.2"),
    driver=DriverSettings(),
    tuning=TuningSettings(),
)


class Connected:
    """A host of pyinfra that reports and says how CUDA starts."""

    name = "gpu1"
    print_prefix = "gpu1: "

    def __init__(self, report: HardwareReport, cuda: str, executing: bool = True):
        self.facts = {HostReportFact: report, CudaStart: cuda}
        self.asked: list[Any] = []
        self.state: Any = SimpleNamespace(is_executing=executing, failed_hosts=set())
        self.output: list[str] = []

    def get_fact(self, fact: Any, **_: Any) -> Any:
        self.asked.append(fact)
        return self.facts[fact]

    def noop(self, _: str) -> None:
        pass

    def log_styled(self, text: str, **_: Any) -> None:
        self.output.append(text)


def run(
    *lines: str, cuda: str = "cuda 0 2", changed: bool = True, **report: str
) -> tuple[list[HardwareReport], str, dict[str, str]]:
    """What was found ready, why it was not, and the outcome of each check by its name."""
    connected = Connected(parse_report(sections(**report)), cuda)
    found: list[HardwareReport] = []
    checks: list[Check] = []
    with ctx_host.use(connected):
        commands = list(
            ready._inner(
                declared=DECLARED,
                cuda=True,
                changed=lambda: changed,
                on_ready=lambda report: found.append(report) or "",
                record=checks.extend,
            )
        )
    for command in commands:
        assert isinstance(command, FunctionCommand)
        assert command.function(connected.state, connected, *command.args) is False
    if not changed:
        assert not connected.asked
    assert {(check.host, check.subject) for check in checks} <= {
        ("gpu1", "GPUs"),
        ("gpu1", "GPU 1"),
    }
    return found, "".join(connected.output), {check.name: check.outcome for check in checks}


def test_a_new_driver_on_the_same_gpus_is_ready():
    (report,), why, outcomes = run()
    assert (why, outcomes) == ("", {"gpus-ready": "pass"})
    assert in_words(report) == "2x NVIDIA L40S (46068 MiB), driver 580.95.05 (open modules)"


def test_nobody_is_asked_where_nothing_changed():
    assert run(changed=False) == ([], "", {})


def test_other_gpus_stop_the_host():
    found, why, outcomes = run(query=query(row(0)))
    assert not found and "GPU 1 is missing" in why
    assert outcomes == {"gpus-ready": "fail"}


def test_a_fault_that_is_left_stops_the_host():
    found, why, outcomes = run(query=query(row(0), row(1, failure="Yes")))
    assert not found and "could not replace a failed row" in why
    assert set(outcomes.values()) == {"fail"}


def test_a_cuda_that_does_not_start_stops_the_host():
    found, why, outcomes = run(cuda="cuda 802 0")
    assert outcomes == {"gpu:cuda-does-not-start": "fail"}
    assert not found and why.startswith("the GPUs are not ready: CUDA finds a system that is not")
