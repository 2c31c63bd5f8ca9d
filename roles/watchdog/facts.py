"""The watchdog of a host, asked separately or again after a change."""

from pyinfra.api import FactBase

from roles.host.facts import reading
from roles.host.question import parse_answers, question
from roles.watchdog.state import PART, WatchdogState, parse_state
from roles.watchdog.status import HostStatus, ask_script, parse_status


class WatchdogStatus(FactBase[HostStatus]):
    """The replicas of a host as its watchdog sees them."""

    @staticmethod
    def default() -> HostStatus:
        return HostStatus(())

    def command(self, port: int) -> str:
        return ask_script(port)

    def process(self, output: list[str]) -> HostStatus:
        with reading("what the host's watchdog says"):
            return parse_status(output)


class WatchdogFacts(FactBase[WatchdogState]):
    """The watchdog's files, units and user, in one command."""

    @staticmethod
    def default() -> WatchdogState:
        return WatchdogState()

    def command(self) -> str:
        return question([PART])

    def process(self, output: list[str]) -> WatchdogState:
        with reading("the host's watchdog"):
            return parse_state(parse_answers(output).get(PART.name, {}))
