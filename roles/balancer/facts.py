"""Facts about a balancer, and about the replicas that it asks."""

from pyinfra.api.facts import FactBase

from roles.balancer import completions
from roles.balancer.completions import ServiceResults
from roles.balancer.found import FoundBalancer, find_command, parse_found
from roles.balancer.kinds import KINDS, balancers
from roles.host.facts import reading


class BalancerFacts(FactBase[FoundBalancer]):
    """A balancer of one kind as it is found, in one command."""

    @staticmethod
    def default() -> FoundBalancer:
        return FoundBalancer()

    def command(self, kind: str) -> str:
        return find_command(KINDS[kind], [one for one in balancers() if one.kind != kind])

    def process(self, output: list[str]) -> FoundBalancer:
        with reading("not the answer of a balancer"):
            return parse_found(output)


class Completions(FactBase[tuple[ServiceResults, ...]]):
    """The results of a program of `roles.balancer.completions`, which comes on `_stdin`."""

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
