"""The engines on a host."""

from pyinfra.api import FactBase

from roles.engine.state import Installed, parse_installed, part
from roles.host.facts import reading
from roles.host.paths import ADAPTERS
from roles.host.question import parse_answers, question


class Adapters(FactBase[tuple[str, ...]]):
    """The digests of the LoRA adapters on a host."""

    @staticmethod
    def default() -> tuple[str, ...]:
        return ()

    def command(self) -> str:
        return f"find {ADAPTERS} -mindepth 1 -maxdepth 1 -printf '%f\\n' 2>/dev/null || true"

    def process(self, output: list[str]) -> tuple[str, ...]:
        return tuple(output)


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
