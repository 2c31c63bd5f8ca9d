"""The engines on a host."""

from pyinfra.api import FactBase

from roles.engine.state import Installed, parse_installed, part
from roles.host.facts import reading
from roles.host.question import parse_answers, question


class InstalledEngines(FactBase[Installed]):
    """Installed versions and missing packages of the distribution, in one command."""

    @staticmethod
    def default() -> Installed:
        return Installed()

    def command(self, packages: list[str]) -> str:
        return question([part(packages)])

    def process(self, output: list[str]) -> Installed:
        with reading("the host's engines"):
            return parse_installed(parse_answers(output).get("engines", {}))
