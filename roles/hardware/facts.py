"""What a host reports about itself, as a pyinfra fact."""

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase
from pyinfra.api.host import Host

from roles.hardware import report


class HostReport(FactBase[report.HostReport]):
    """Sudo, system, GPUs and driver in one command. Ask it through `observe`."""

    @staticmethod
    def default() -> report.HostReport:
        return report.NO_REPORT

    def command(self) -> str:
        return report.SCRIPT

    def process(self, output: list[str]) -> report.HostReport:
        try:
            return report.parse_report(output)
        # Any other exception would end the run for every host.
        except ValueError as error:
            raise FactProcessError(str(error)) from error


def observe(host: Host) -> report.HostReport:
    """The report of a host, asked without sudo: it says itself whether sudo would ask a password.

    The timeout is for a process that even SIGKILL does not end, as with a driver that hangs in
    the kernel: then the fact fails this host alone.
    """
    return host.get_fact(HostReport, _sudo=False, _timeout=90)
