"""What a deploy of one balancer asks, writes and removes, given what is found there. Pure."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from roles.balancer import completions
from roles.balancer import state as states
from roles.balancer.balancer import Balancer
from roles.balancer.completions import ServiceProbe, ServiceResults
from roles.balancer.drains import Drain
from roles.balancer.found import FoundBalancer
from roles.balancer.kinds import KINDS
from roles.balancer.routes import Route
from roles.balancer.settings import BalancerSettings
from roles.balancer.upstreams import servers
from roles.host import HostFile


@dataclass
class BalancerDeployment:
    """One deploy of one balancer, with what its operations have found so far.

    `found` is the balancer as it was, `old` the state that was written there, `inherited` the names
    of the self-signed certificate of the program that serves, `results` are the
    completions by service. `changed` says that files were written. `taken_down` gives the ids of
    replicas that this run took down, `people` what people have drained on any
    balancer; `note` takes the state that was found.
    """

    balancer: Balancer
    settings: BalancerSettings
    routes: Sequence[Route]
    run_id: str
    found: FoundBalancer = field(default_factory=FoundBalancer)
    old: states.BalancerState | None = None
    results: dict[str, ServiceResults] = field(default_factory=dict)
    changed: bool = False
    taken_down: Callable[[], Collection[str]] = tuple
    people: Callable[[], Collection[Drain]] = tuple
    note: Callable[[states.BalancerState], None] = lambda state: None
    inherited: frozenset[str] = frozenset()

    @property
    def replaced(self) -> tuple[Balancer, ...]:
        """The programs that serve until this one takes their place."""
        return tuple(KINDS[kind] for kind in self.found.others)

    @property
    def replacement_problem(self) -> str | None:
        """Why this program cannot take the place of another one, and what to do."""
        odd = self.unanswered | {one.service for one in self.results.values() if one.keeps_key}
        if not self.replaced or not odd:
            return None
        kinds = ", ".join(self.found.others)
        return (
            f"{kinds} goes on, and {self.balancer.kind} is not started: the replicas of "
            f"{', '.join(sorted(odd))} do not answer as planned; finish their rolling update, and "
            "then change balancer.program"
        )

    @property
    def planned(self) -> states.BalancerState:
        """The planned state, before any member was asked."""
        return states.planned_state(
            self.old, self.routes, self.settings, self.run_id, now(), self.people()
        )

    @property
    def unanswered(self) -> frozenset[str]:
        """Services that the balancer served before and whose members all failed now.

        They go on as they were: a rolling update that stopped early may have left their engines
        with other ports or another key.
        """
        found = frozenset(
            service for service, answers in self.results.items() if answers.all_failed
        )
        if self.old is None:
            # A site without a state is replaced only if some service works.
            everything = found.issuperset(route.service for route in self.routes)
            return found if everything and self.balancer.site in self.found.files else frozenset()
        return frozenset(service for service in found if self.old.upstream(service))

    @property
    def nothing_answers(self) -> bool:
        """Whether no service answers, so that everything stays as it was."""
        return bool(self.routes) and self.unanswered.issuperset(r.service for r in self.routes)

    @property
    def wanted(self) -> states.BalancerState:
        """The state to write."""
        failures = {id: why for one in self.results.values() for id, why in one.failed.items()}
        return states.with_results(self.planned, self.old, failures, self.unanswered)

    @property
    def probe_program(self) -> str:
        """The program that asks all members that are not drained; it holds keys."""
        planned = self.planned
        members = {
            upstream.service: [s.member for s in servers(upstream, planned.drains) if not s.out]
            for upstream in planned.upstreams
        }
        questions = [
            ServiceProbe(
                route,
                members[route.service],
                [
                    path
                    for one in (self.balancer, *self.replaced)
                    for path in one.engine_key_paths(route.service)
                ],
            )
            for route in self.routes
        ]
        return completions.probe_script(questions, self.settings.completion_timeout_s)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about failed members, and about members that no plan has any more."""
        return tuple(self._warnings())

    def _warnings(self) -> Iterator[str]:
        for answers in self.results.values():
            if answers.failed:
                failed = _by_reason(answers.failed)
                yield f"of {answers.service} these gave no completion: {failed}"
            if answers.keeps_key:
                yield (
                    f"engines of {answers.service} expect their old key: it stays until a rolling "
                    "update has reached all of them"
                )
        for service in sorted(self.unanswered):
            yield (
                f"no replica of {service} answers as planned: its upstream and its engines' key "
                "stay as they are"
            )
        if self.old and not self.nothing_answers:
            for id in states.removed_members(self.old, self.routes):
                yield states.removed_message(id, taken_down=id in self.taken_down())

    @property
    def last_resort_warnings(self) -> tuple[str, ...]:
        """Warnings about members that get requests only because no healthy one is left, by their
        upstream."""
        wanted = self.wanted
        kept = {
            upstream.service: {
                server.member.id: server.kept
                for server in servers(upstream, wanted.drains)
                if server.kept
            }
            for upstream in wanted.upstreams
        }
        return tuple(
            f"of {service} these are kept as nothing else is left: {_by_reason(reasons)}"
            for service, reasons in kept.items()
            if reasons
        )

    @property
    def files(self) -> list[HostFile]:
        """All files to write; a file comes before those that refer to it."""
        keys = [self.balancer.engine_key_file(route) for route in self.routes]
        kept = self._kept_keys
        return [
            *self.balancer.upstream_files(self.wanted),
            *(file for file in keys if file.path not in kept),
            *self.balancer.site_files(self.settings, self.routes),
        ]

    @property
    def unused_files(self) -> list[str]:
        """Our files on the balancer that are no longer used."""
        used = {file.path for file in self.files} | self._kept_keys
        if self.settings.certificate_file is None:
            used.add(self.balancer.self_signed)
        return sorted(self.found.files.keys() - used)

    @property
    def _kept_keys(self) -> set[str]:
        """Files of engine keys that stay, because the engines do not accept the planned keys."""
        stay = {answers.service for answers in self.results.values() if answers.keeps_key}
        stay |= self.unanswered
        files = [self.balancer.engine_key_file(r) for r in self.routes if r.service in stay]
        return {file.path for file in files} & self.found.files.keys()


def _by_reason(reasons: Mapping[str, str]) -> str:
    """Members by id, those with one reason together."""
    ids: dict[str, list[str]] = {}
    for id, reason in reasons.items():
        ids.setdefault(reason, []).append(id)
    return "; ".join(f"{', '.join(own)} ({reason})" for reason, own in ids.items())


def now() -> str:
    """The present time as drains record it (ISO 8601)."""
    return datetime.now(UTC).isoformat(timespec="seconds")
