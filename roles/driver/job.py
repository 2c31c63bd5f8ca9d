"""The job for one host's driver in one run: the state that its operations share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pyinfra import host

from roles.driver.decision import DriverDecision, DriverRequest, decide
from roles.driver.facts import DriverReport
from roles.driver.reboot import reboot_blocker, reboot_reasons, reboot_recommendations
from roles.driver.state import DriverState

MayChange = Callable[[], bool]


def always_allowed() -> bool:
    """The host may always be changed."""
    return True


@dataclass
class Job:
    """One host's driver in one run: the request, and the host's latest state.

    The operations of a host share it, so the host is asked again only after a change. After
    `possible` has executed, `to_do` says whether something must be installed or a reboot is needed.
    `known_state` returns the state from the run's question while it is valid; `on_change` is called
    when it no longer is.
    """

    request: DriverRequest
    failed: str | None = None
    to_do: bool = False
    was_changed: bool = False
    index_refreshed: bool = False
    known_state: Callable[[], DriverState | None] = lambda: None
    on_change: Callable[[], None] = lambda: None
    _state: DriverState | None = field(default=None, repr=False)
    _read_while_executing: object = None

    def state(self) -> DriverState | None:
        """The state of the host's driver; None if the host did not answer, and pyinfra failed
        it."""
        # The state may have changed between the preparation of the run and its execution.
        now = host.state.is_executing
        if self._state is None or self._read_while_executing is not now:
            self._state, self._read_while_executing = (
                self.known_state() or host.get_fact(DriverReport),
                now,
            )
        return self._state

    def changed(self) -> None:
        """Note a change, so that the host is asked again."""
        self._state = None
        self.was_changed = True
        self.on_change()

    def reboot_reasons(self) -> tuple[str, ...]:
        """Why the driver serves only after a reboot; empty if it does not need one."""
        state = self.state()
        return reboot_reasons(state, self.request.amd_gpus) if state else ()

    def reboot_recommendations(self) -> tuple[str, ...]:
        """Why a reboot is recommended although the driver serves; empty if none is."""
        state = self.state()
        return reboot_recommendations(state, self.request.amd_gpus) if state else ()

    def reboot_blocker(self) -> str:
        """Why a reboot would leave the host without its driver, or ""."""
        state = self.state()
        return (
            reboot_blocker(state)
            if state and self.request.gpus and not self.request.amd_gpus
            else ""
        )

    def decision(self, state: DriverState) -> DriverDecision | None:
        """What to do; None if nothing can be done, and `failed` says why."""
        try:
            return decide(self.request, state)
        except ValueError as error:
            self.failed = str(error)
            return None
