"""What a host reports about itself, as pyinfra facts."""

from dataclasses import asdict
from typing import Any

from pyinfra.api.facts import FactBase
from pyinfra.api.host import Host

from roles.hardware import cuda, report
from roles.host.facts import TIMEOUT_S, reading
from roles.host.question import parse_answers, question


class HostReport(FactBase[report.HardwareReport | None]):
    """Sudo, system, GPUs, links and faults of a host that is asked for nothing else, or again after
    a change. Ask it through `observe`."""

    @staticmethod
    def default() -> report.HardwareReport | None:
        return None

    def command(self) -> str:
        return question([report.PART])

    def process(self, output: list[str]) -> report.HardwareReport:
        with reading("the host's hardware"):
            return report.parse_report(parse_answers(output).get(report.PART.name, {}))


class Hardware(FactBase[dict[str, Any]]):
    """The same for a person: `pyinfra INVENTORY fact roles.hardware.facts.Hardware --json`."""

    default = dict

    def command(self) -> str:
        return HostReport().command()

    def process(self, output: list[str]) -> dict[str, Any]:
        return asdict(HostReport().process(output))


class CudaStart(FactBase[str]):
    """What CUDA's own library says when it starts; see `roles.hardware.cuda`. Asked as root, which
    makes the device files where they are missing."""

    @staticmethod
    def default() -> str:
        return ""

    def command(self) -> str:
        return cuda.SCRIPT

    def process(self, output: list[str]) -> str:
        return "\n".join(output)


def observe(host: Host) -> report.HardwareReport | None:
    """The report of a host, asked without sudo: it says itself whether sudo would ask a password.

    None where the host gave none; then pyinfra has failed it.
    """
    return host.get_fact(HostReport, _sudo=False, _timeout=TIMEOUT_S)
