"""One host's driver in one run: what its operations share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pyinfra import host

from roles.driver.decision import Decision, Request, decide
from roles.driver.facts import DriverReport
from roles.driver.reboot import hindrance, reboot_reasons, reboot_wishes
from roles.driver.state import DriverState
from roles.host import HostFile

NOUVEAU = HostFile(
    "/etc/modprobe.d/llm-nouveau.conf",
    "# Written by pyinfra-llm: nouveau would hold the GPUs.\n"
    "blacklist nouveau\noptions nouveau modeset=0\n",
)
# By it nvlsm reaches the NVSwitches of B200 and B300.
IB_UMAD = HostFile(
    "/etc/modules-load.d/llm-nvlsm.conf", "# Written by pyinfra-llm, for nvlsm.\nib_umad\n"
)
OURS = (
    NOUVEAU.path,
    IB_UMAD.path,
    "/etc/apt/preferences.d/llm-nvidia",
    "/etc/apt/sources.list.d/llm-nvidia.list",
    "/etc/apt/sources.list.d/llm-amd.list",
    "/etc/yum.repos.d/llm-nvidia.repo",
    "/etc/yum.repos.d/llm-amd.repo",
)

Turn = Callable[[], bool]


def always() -> bool:
    """It is every host's turn."""
    return True


@dataclass
class Job:
    """One host's driver in one run: what is wanted, and what the host said last.

    The operations of a host share it, so that the host is asked again only after a change. Once
    `possible` was executed, `to_do` says whether anything will be installed or a reboot is needed.
    """

    request: Request
    failed: str | None = None
    to_do: bool = False
    touched: bool = False
    refreshed: bool = False
    _seen: DriverState | None = field(default=None, repr=False)
    _asked_at: object = None

    def state(self) -> DriverState | None:
        """What the host says of its driver; None where it said nothing, and pyinfra failed it."""
        # What was seen while the run was prepared may have changed before it executes.
        now = host.state.is_executing
        if self._seen is None or self._asked_at is not now:
            self._seen, self._asked_at = host.get_fact(DriverReport, paths=list(OURS)), now
        return self._seen

    def changed(self) -> None:
        """Have the host asked again: something was done on it."""
        self._seen = None
        self.touched = True

    def reboot_reasons(self) -> tuple[str, ...]:
        """Why the host has to be rebooted before its driver serves; empty where it need not."""
        state = self.state()
        return reboot_reasons(state, self.request.amd_gpus) if state else ()

    def reboot_wishes(self) -> tuple[str, ...]:
        """Why a reboot would be good, though the driver serves without one; empty where none is."""
        state = self.state()
        return reboot_wishes(state, self.request.amd_gpus) if state else ()

    def hindrance(self) -> str:
        """Why a reboot would leave the host without its driver, or ""."""
        state = self.state()
        return hindrance(state) if state and self.request.gpus and not self.request.amd_gpus else ""

    def decision(self, state: DriverState) -> Decision | None:
        """What to do; None where nothing can be done, which `failed` says."""
        try:
            return decide(self.request, state)
        except ValueError as error:
            self.failed = str(error)
            return None
