"""What is on a balancer, and what its replicas answer it."""

from pyinfra.api.facts import FactBase

from roles.balancer import completions
from roles.balancer.completions import Answers
from roles.balancer.kinds import KINDS
from roles.balancer.standing import Standing, parsed_standing, standing_command
from roles.host.facts import reading


class BalancerStanding(FactBase[Standing]):
    """Everything that a deploy wants to know of a balancer of one kind, in one command."""

    @staticmethod
    def default() -> Standing:
        return Standing()

    def command(self, kind: str) -> str:
        return standing_command(KINDS[kind])

    def process(self, output: list[str]) -> Standing:
        with reading("not the standing of a balancer"):
            return parsed_standing(output)


class Completions(FactBase[tuple[Answers, ...]]):
    """What a `roles.balancer.completions.script` on the standard input printed."""

    @staticmethod
    def default() -> tuple[Answers, ...]:
        return ()

    def requires_command(self) -> str:
        return "python3"

    def command(self) -> str:
        return "python3 -"

    def process(self, output: list[str]) -> tuple[Answers, ...]:
        with reading("the replicas could not be asked"):
            return completions.parsed(output[-1] if output else "")
