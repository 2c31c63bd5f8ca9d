"""Facts about the replicas on a host."""

from pyinfra.api import FactBase

from roles.host import PROGRESS
from roles.host.facts import reading
from roles.host.question import parse_answers, question
from roles.launch.state import PART, LaunchState, parse_state


class LaunchFacts(FactBase[LaunchState]):
    """The launch state of a host: units, manifest, shared files, firewall."""

    @staticmethod
    def default() -> LaunchState:
        return LaunchState()

    def command(self) -> str:
        return question([PART])

    def process(self, output: list[str]) -> LaunchState:
        with reading("the host's replicas"):
            return parse_state(parse_answers(output).get(PART.name, {}))


class NotServing(FactBase[str]):
    """Why a replica does not serve, with its log, or "" once all serve. The program comes on
    `_stdin`."""

    @staticmethod
    def default() -> str:
        return ""

    def command(self) -> str:
        return "python3 - 2>&1 || true"

    def process(self, output: list[str]) -> str:
        # Where a project's config.py does not have them heard, they are output.
        return "\n".join(line for line in output if not line.startswith(PROGRESS))
