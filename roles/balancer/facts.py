"""What is on a balancer, and what its replicas answer it."""

from pyinfra.api.facts import FactBase

from roles.balancer import completions
from roles.balancer.completions import ServiceResults
from roles.balancer.found import FoundBalancer, find_command, parse_found
from roles.balancer.kinds import KINDS
from roles.host.facts import reading


class BalancerFacts(FactBase[FoundBalancer]):
    """Everything that a deploy wants to know of a balancer of one kind, in one command."""

    @staticmethod
    def default() -> FoundBalancer:
        return FoundBalancer()

    def command(self, kind: str) -> str:
        return find_command(KINDS[kind])

    def process(self, output: list[str]) -> FoundBalancer:
        with reading("not the standing of a balancer"):
            return parse_found(output)


class Completions(FactBase[tuple[ServiceResults, ...]]):
    """What a `roles.balancer.completions.script` on the standard input printed."""

    @staticmethod
    def default() -> tuple[ServiceResults, ...]:
        return ()

    def requires_command(self) -> str:
        return "python3"

    def command(self) -> str:
        return "python3 -"

    def process(self, output: list[str]) -> tuple[ServiceResults, ...]:
        with reading("the replicas could not be asked"):
            return completions.parse_results(output[-1] if output else "")
