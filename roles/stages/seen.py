"""What a run has seen of replicas: which serve, which do not, which are unknown. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from roles.checks import Check

# What was seen of a replica; None stands for one of which nothing is known.
Sight = Literal["serves", "loading", "down"]


@dataclass(eq=False)
class Seen:
    """What a run last saw of each replica, by host and name.

    `states` come from units and engines; they are valid until something is done on the host or it
    fails. `proofs` come from completions and restored replicas; they stay valid then. None means
    unknown: something is being done with the replica.
    """

    states: dict[str, dict[str, Sight | None]] = field(default_factory=dict)
    proofs: dict[str, dict[str, Sight | None]] = field(default_factory=dict)

    def units(self, host: str, seen: Mapping[str, Sight | None]) -> None:
        """Record what a host reports of its replicas' units and engines."""
        self.states[host] = dict(seen)
        self.proofs.pop(host, None)

    def touched(self, host: str, names: Iterable[str] = ()) -> None:
        """Record that something is done with these replicas of a host, or, without names, with the
        host itself."""
        if names := list(names):
            self.proofs.setdefault(host, {}).update(dict.fromkeys(names))
        else:
            self.states.pop(host, None)
            self.proofs.pop(host, None)

    def proved(self, ids: Collection[str], serves: bool = True) -> None:
        """Record whether these replicas ("host/name") answered a completion."""
        for id in ids:
            host, _, name = id.partition("/")
            self.proofs.setdefault(host, {})[name] = "serves" if serves else "down"

    def checked(self, checks: Iterable[Check]) -> None:
        """Record the checks of validation; a host that gave no answer becomes unknown."""
        for check in checks:
            if check.name == "completion" and check.outcome in ("pass", "fail"):
                self.proved([f"{check.host}/{check.subject}"], check.outcome == "pass")
            if check.name == "host" and check.outcome == "fail":
                self.touched(check.host)

    def of(self, host: str, name: str, failed: bool) -> Sight | None:
        """The last sight of a replica, None where it is unknown; `failed` says that its host failed
        while the run executed."""
        if name in (proofs := self.proofs.get(host, {})):
            return proofs[name]
        if failed or host not in self.states:
            return None
        return self.states[host].get(name, "down")
