"""What a host reports about itself, as a pyinfra fact."""

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase
from pyinfra.api.host import Host

from roles.hardware.report import NO_REPORT, SCRIPT, HostReport, parse_report


class HostReportFact(FactBase[HostReport]):
    """Sudo, system, GPUs and driver in one command. Ask it through `observe`."""

    @staticmethod
    def default() -> HostReport:
        return NO_REPORT

    def command(self) -> str:
        return SCRIPT

    def process(self, output: list[str]) -> HostReport:
        try:
            return parse_report(output)
        # Any other exception would end the run for every host.
        except ValueError as error:
            raise FactProcessError(str(error)) from error


def observe(host: Host) -> HostReport:
    """The report of a host, asked without sudo: it says itself whether sudo would ask a password.

    The timeout is for a process that even SIGKILL does not end, as with a driver that hangs in
    the kernel: then the fact fails this host alone.
    """
    return host.get_fact(HostReportFact, _sudo=False, _timeout=90)
