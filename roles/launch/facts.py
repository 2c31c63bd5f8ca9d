"""What of our replicas runs on a host, in one command."""

from pyinfra.api import FactBase

from roles.host.facts import reading
from roles.host.question import parse_answers, question
from roles.launch.state import PART, LaunchState, parse_state


class LaunchFacts(FactBase[LaunchState]):
    """Units, processes' folders, manifest, shared files and firewall, in one command."""

    @staticmethod
    def default() -> LaunchState:
        return LaunchState()

    def command(self) -> str:
        return question([PART])

    def process(self, output: list[str]) -> LaunchState:
        with reading("the host's replicas"):
            return parse_state(parse_answers(output).get(PART.name, {}))


class NotServing(FactBase[str]):
    """Why a replica does not serve, with its log; "" once all do. The program is the `_stdin`."""

    @staticmethod
    def default() -> str:
        return ""

    def command(self) -> str:
        return "python3 - 2>&1 || true"

    def process(self, output: list[str]) -> str:
        return "\n".join(output)
