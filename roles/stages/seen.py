"""What a run has seen of replicas: which serve, which do not, of which it does not know. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from roles.checks import Check


@dataclass(eq=False)
class Seen:
    """The last that a run saw of each replica, by host and name.

    `states` are what hosts say of their units, which hold until something is done there or the host
    fails; `proofs` are completions, and what was put back, which hold then too. None stands for a
    replica that may be anything: something is being done with it.
    """

    states: dict[str, dict[str, bool | None]] = field(default_factory=dict)
    proofs: dict[str, dict[str, bool | None]] = field(default_factory=dict)

    def units(self, host: str, up: Mapping[str, bool]) -> None:
        """A host says of all its replicas' units whether they run."""
        self.states[host] = dict(up)
        self.proofs.pop(host, None)

    def touched(self, host: str, names: Iterable[str] = ()) -> None:
        """Something is done with these replicas of a host; without names, with the host itself."""
        if names := list(names):
            self.proofs.setdefault(host, {}).update(dict.fromkeys(names))
        else:
            self.states.pop(host, None)
            self.proofs.pop(host, None)

    def proved(self, ids: Collection[str], serves: bool = True) -> None:
        """These replicas ("host/name") gave a completion, or none."""
        for id in ids:
            host, _, name = id.partition("/")
            self.proofs.setdefault(host, {})[name] = serves

    def checked(self, checks: Iterable[Check]) -> None:
        """Take what validation found; of a host that gave it no answer nothing is known."""
        for check in checks:
            if check.name == "completion" and check.outcome in ("pass", "fail"):
                self.proved([f"{check.host}/{check.subject}"], check.outcome == "pass")
            if check.name == "host" and check.outcome == "fail":
                self.touched(check.host)

    def serves(self, host: str, name: str, failed: bool) -> bool | None:
        """Whether a replica serves, None where that was not seen; `failed` hosts failed while the
        run was executed."""
        if name in (proofs := self.proofs.get(host, {})):
            return proofs[name]
        if failed or host not in self.states:
            return None
        return self.states[host].get(name, False)
