"""The hardware of a host, as pyinfra facts."""

from dataclasses import asdict
from typing import Any

from pyinfra.api.facts import FactBase
from pyinfra.api.host import Host

from roles.hardware import cuda, report
from roles.host.facts import TIMEOUT_S, reading
from roles.host.question import parse_answers, question


class HostReport(FactBase[report.HardwareReport | None]):
    """Sudo, system, GPUs, links and faults of a host, asked separately or again after a change.

    Use `observe` to ask it."""

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
    """The output of starting CUDA's own library; see `roles.hardware.cuda`.

    It is asked as root, which creates missing device files."""

    @staticmethod
    def default() -> str:
        return ""

    def command(self) -> str:
        return cuda.SCRIPT

    def process(self, output: list[str]) -> str:
        return "\n".join(output)


def observe(host: Host) -> report.HardwareReport | None:
    """The report of a host, asked without pyinfra's sudo: it says whether sudo needs a password.

    None if the host gave none; pyinfra has then failed it.
    """
    return host.get_fact(HostReport, _sudo=False, _timeout=TIMEOUT_S)
