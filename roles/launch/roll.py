"""A roll over hosts in one pyinfra run: it stops when a host fails in it."""

from dataclasses import dataclass, field

from pyinfra.api import State


@dataclass
class Roll:
    """Remembers which hosts had failed before the roll began: those do not stop it.

    A balancer that failed does, whenever it did: nobody would see that requests still arrive.
    """

    state: State
    balancers: frozenset[str]
    failed_before: frozenset[str] | None = field(default=None)

    def stopped_by(self) -> str:
        """Names of the hosts whose failure stops the roll, or "" while there are none."""
        failed = frozenset(host.name for host in self.state.failed_hosts)
        if not self.state.is_executing:
            return ""
        if self.failed_before is None:
            self.failed_before = failed - self.balancers
        return ", ".join(sorted(failed - self.failed_before))
