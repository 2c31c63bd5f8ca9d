"""A roll over hosts in one pyinfra run: it stops when a host fails in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pyinfra.api import State


@dataclass
class Roll:
    """Remembers which hosts had failed before the roll began: those do not stop it.

    A balancer that failed does, whenever it did: nobody would see that requests still arrive.
    `restarting` are the hosts that must restart replicas, `set_aside` those that get no requests
    meanwhile, `left_alone` those that a stopped roll did not reach, `lost` those that did not come
    back from it: they get no requests until they serve again.
    """

    state: State
    balancers: frozenset[str]
    failed_before: frozenset[str] | None = field(default=None)
    restarting: set[str] = field(default_factory=set)
    set_aside: set[str] = field(default_factory=set)
    left_alone: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)

    def stopped_by(self) -> str:
        """Names of the hosts whose failure stops the roll, or "" while there are none."""
        failed = frozenset(host.name for host in self.state.failed_hosts)
        if not self.state.is_executing:
            return ""
        if self.failed_before is None:
            self.failed_before = failed - self.balancers
        return ", ".join(sorted(failed - self.failed_before))

    def wants(self, batch: Sequence[str]) -> bool:
        """Whether the batch's turn has come: it must restart, and nothing has stopped the roll."""
        return bool(self.restarting & set(batch)) and not self.stopped_by()
