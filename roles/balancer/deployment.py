"""What a deploy of one balancer asks, writes and removes, by what is found there. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from roles.balancer import completions
from roles.balancer import state as states
from roles.balancer.balancer import Balancer
from roles.balancer.completions import ServiceProbe, ServiceResults
from roles.balancer.found import FoundBalancer
from roles.balancer.routes import Route
from roles.balancer.settings import BalancerSettings
from roles.balancer.upstreams import servers
from roles.host import HostFile


@dataclass
class BalancerDeployment:
    """One deploy of one balancer, and what its steps found out on the way.

    `unanswered` are the services that go on as they were: none of their members answers as planned,
    because a roll stopped early has left the engines with other ports or another key. `changed`
    says that files were written.
    """

    balancer: Balancer
    settings: BalancerSettings
    routes: Sequence[Route]
    run_id: str
    found: FoundBalancer = field(default_factory=FoundBalancer)
    old: states.BalancerState | None = None
    results: dict[str, ServiceResults] = field(default_factory=dict)
    changed: bool = False

    @property
    def planned(self) -> states.BalancerState:
        """The state that is asked for, as far as no member failed."""
        return states.planned_state(self.old, self.routes, self.settings, self.run_id, now())

    @property
    def unanswered(self) -> frozenset[str]:
        """Services that were here before, and none of whose members answers as it must."""
        found = frozenset(
            service for service, answers in self.results.items() if answers.all_failed
        )
        if self.old is None:
            # A site without a state: it is replaced by one that works, or not at all.
            everything = found.issuperset(route.service for route in self.routes)
            return found if everything and self.balancer.site in self.found.files else frozenset()
        return frozenset(service for service in found if self.old.upstream(service))

    @property
    def nothing_answers(self) -> bool:
        """Whether everything stays as it was."""
        return bool(self.routes) and self.unanswered.issuperset(r.service for r in self.routes)

    @property
    def wanted(self) -> states.BalancerState:
        """The state that is written."""
        failures = {id: why for one in self.results.values() for id, why in one.failed.items()}
        return states.with_results(self.planned, self.old, failures, self.unanswered)

    @property
    def probe_program(self) -> str:
        """The program that asks all members but the drained; it holds keys."""
        planned = self.planned
        members = {
            upstream.service: [s.member for s in servers(upstream, planned.drains) if not s.out]
            for upstream in planned.upstreams
        }
        questions = [
            ServiceProbe(
                route, members[route.service], self.balancer.engine_key_paths(route.service)
            )
            for route in self.routes
        ]
        return completions.probe_script(questions, self.settings.completion_timeout_s)

    @property
    def messages(self) -> tuple[str, ...]:
        """What is to be said of the answers, and of members that are in no plan any more."""
        return tuple(self._messages())

    def _messages(self) -> Iterator[str]:
        for answers in self.results.values():
            for id, why in answers.failed.items():
                yield f"{id} gave no completion: {why}"
            if answers.keeps_key:
                yield (
                    f"engines of {answers.service} expect the key that they had: it stays until a "
                    "roll has reached all of them"
                )
        for service in sorted(self.unanswered):
            yield (
                f"no replica of {service} answers as planned: its upstream and its engines' key "
                "stay as they are"
            )
        if self.old and not self.nothing_answers:
            for id in states.removed_members(self.old, self.routes):
                yield states.removed_message(id)

    @property
    def kept_messages(self) -> tuple[str, ...]:
        """Of members that get requests only because nothing else is left."""
        wanted = self.wanted
        return tuple(
            server.comment
            for upstream in wanted.upstreams
            for server in servers(upstream, wanted.drains)
            if server.kept
        )

    @property
    def files(self) -> list[HostFile]:
        """All files of the balancer that are written, those that others refer to first."""
        keys = [self.balancer.engine_key_file(route) for route in self.routes]
        kept = self._kept_keys
        return [
            *self.balancer.upstream_files(self.wanted),
            *(file for file in keys if file.path not in kept),
            *self.balancer.site_files(self.settings, self.routes),
        ]

    @property
    def leftover(self) -> list[str]:
        """Files of ours that are there and no longer used."""
        used = {file.path for file in self.files} | self._kept_keys
        if self.settings.certificate_file is None:
            used.add(self.balancer.self_signed)
        return sorted(self.found.files.keys() - used)

    @property
    def _kept_keys(self) -> set[str]:
        """The files of engine keys that stay, because the engines do not expect the planned."""
        stay = {answers.service for answers in self.results.values() if answers.keeps_key}
        stay |= self.unanswered
        files = [self.balancer.engine_key_file(r) for r in self.routes if r.service in stay]
        return {file.path for file in files} & self.found.files.keys()


def now() -> str:
    """The time as drains have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
