"""The fact that runs all-reduces on a host."""

from pyinfra.api import FactBase

from roles.engine import Build
from roles.interconnect.program import command


class AllReduces(FactBase[list[str]]):
    """The output of the program that measures, which comes on `_stdin`."""

    default = list

    def command(self, engine: Build, python: str, user: str, seconds: int) -> str:
        return command(engine, python, user, seconds)

    def process(self, output: list[str]) -> list[str]:
        return output
