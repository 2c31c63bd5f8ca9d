"""The input of a rolling update: the replicas that serve now, and what must change."""

from dataclasses import dataclass

ROLLING_UPDATE = "rolling-update"
"""The owner of the drains that an update makes."""


@dataclass(frozen=True)
class Member:
    """A replica in the upstream of its service.

    `id` is "host/name". `hosts` are all hosts that it runs on; it moves as one. `serves`: it
    answers a completion now. `drained_by`: the owners of its drains. `leaves` are those of `hosts`
    that it runs on no more once it has moved: it serves without them.
    """

    id: str
    service: str
    hosts: tuple[str, ...]
    serves: bool = True
    drained_by: frozenset[str] = frozenset()
    leaves: frozenset[str] = frozenset()

    @property
    def gets_requests(self) -> bool:
        """Whether balancers send it requests now."""
        return self.serves and not self.drained_by

    @property
    def will_get_requests(self) -> bool:
        """Whether balancers send it requests once it serves: it has no drain of another owner."""
        return self.drained_by <= {ROLLING_UPDATE}


@dataclass(frozen=True)
class Restart:
    """A replica must restart with new files.

    `replaces` are old replicas whose GPUs or ports it needs. They stop in the same step, and are
    removed unless a change of their own restarts them. Replicas with the same `together`, a
    sentence that says why, restart in one step.
    """

    replica: str
    replaces: tuple[str, ...] = ()
    together: str = ""


@dataclass(frozen=True)
class Removal:
    """A replica is removed: it left the plan, or its host is retired."""

    replica: str


@dataclass(frozen=True)
class HostRestart:
    """A host must reboot, or stop all its replicas for another driver."""

    host: str


Change = Restart | Removal | HostRestart
