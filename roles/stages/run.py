"""The state of one run, the only one under roles/."""

import secrets
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from gevent.lock import RLock
from pyinfra import host
from pyinfra.api import State

from roles.checks import Report
from roles.checks.deploy import report_of
from roles.declaration import Declaration
from roles.fleet import Fleet, host_launch, with_hardware
from roles.fleet.checked import checked
from roles.hardware import Hardware, HardwareReport
from roles.launch import Change, HostLaunch, LaunchState
from roles.reboot.operations import Reboots
from roles.stages.members import Found, changes_of
from roles.stages.rolling import Rolling
from roles.stages.seen import Seen

Answer = TypeVar("Answer")

# The name under which a run hangs on pyinfra's state.
_NAME = "pyinfra_llm_run"


def run_id(now: datetime, random: int) -> str:
    """The id of a run that begins now, for instance 20261129T160312Z-4f2a; ids sort by time."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{random & 0xFFFF:04x}"


@dataclass(eq=False)
class Run:
    """One pyinfra run from its start to its report.

    `fleet` is frozen; `replan` and `observed` put another in its place where there is new evidence.
    `rolling` is how the rolling update of engines stands, `found` what hosts ran before it and what
    is to be done there; `restarts` is the update of reboots, `reboots` who needs one. `seen` is
    what was seen of replicas, `compared` are the hosts whose plan was compared with what they run.
    `lock` is for what hosts that are prepared side by side must do once.
    """

    id: str
    state: State
    file: Path
    declaration: Declaration
    fleet: Fleet
    reboots: Reboots = field(default_factory=Reboots)
    found: dict[str, Found] = field(default_factory=dict)
    restarts: Rolling | None = None
    loaded: bool = False
    compared: set[str] = field(default_factory=set)
    told_plan: bool = False
    seen: Seen = field(default_factory=Seen)
    lock: RLock = field(default_factory=RLock)
    _answers: dict[str, dict[Hashable, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rolling = Rolling(
            self.state,
            lambda: self.fleet,
            lambda settings: settings.launch.roll_batches,
            lambda: self.found,
            changes_of,
        )
        self.report.run = self.id

    @property
    def report(self) -> Report:
        """What was checked in this run."""
        return report_of(self.state)

    def note(
        self, name: str, state: LaunchState, changes: Sequence[Change], fresh: bool = False
    ) -> None:
        """Note what a host runs and what is to be done there, for the rolling update."""
        self.found[name] = Found(state, tuple(changes), fresh)
        self.saw(name, state)

    def saw(self, name: str, state: LaunchState) -> None:
        """Note what a host says of its replicas' units."""
        self.seen.units(name, {one: unit.active == "active" for one, unit in state.units.items()})

    def launch(self, name: str) -> HostLaunch:
        """What a host is to run, as the run's plan is now."""
        return host_launch(self.fleet, name)

    @classmethod
    def of(cls, state: State) -> "Run":
        """The run of a pyinfra state; it begins with the first call."""
        run = cls.begun(state)
        if run is None:
            run = cls._begun(state)
            setattr(state, _NAME, run)
        return run

    @classmethod
    def begun(cls, state: State) -> "Run | None":
        """The run of a pyinfra state, where it has begun."""
        return getattr(state, _NAME, None)

    @classmethod
    def current(cls) -> "Run":
        """The run that this host is in."""
        return cls.of(host.state)

    @classmethod
    def _begun(cls, state: State) -> "Run":
        inventory = checked(state)
        return cls(
            id=run_id(datetime.now(UTC), secrets.randbits(16)),
            state=state,
            file=inventory.file,
            declaration=inventory.declaration,
            fleet=inventory.fleet,
        )

    def answer(
        self, name: str, question: Hashable, ask: Callable[[], Answer | None]
    ) -> Answer | None:
        """What a host answers to a question, asked once until the host is `changed`.

        None, where it gave no answer, is not kept.
        """
        known = self._answers.setdefault(name, {})
        if question not in known:
            found = ask()
            if found is None:
                return None
            known[question] = found
        return known[question]  # type: ignore[return-value]

    def known(self, name: str, question: Hashable) -> Any:
        """What a host answered to a question and holds still, or None."""
        return self._answers.get(name, {}).get(question)

    def changed(self, name: str) -> None:
        """Forget what a host answered: something was done on it."""
        self._answers.pop(name, None)
        self.seen.touched(name)

    def observed(self, name: str, report: HardwareReport) -> None:
        """Go on with what a host reports of its devices and its driver."""
        known = self.fleet.host(name)
        driver = report.hardware.driver_version if report.hardware else None
        unready = known.hardware is not None and bool(report.blocking_faults)
        seen = replace(known, devices=report.devices, driver_version=driver, unready=unready)
        hosts = tuple(seen if one.name == name else one for one in self.fleet.hosts)
        self.fleet = replace(self.fleet, hosts=hosts)

    def replan(self, name: str, hardware: Hardware) -> tuple[bool, Fleet]:
        """Plan anew with other hardware of a host: its links, its slices, verdicts, its driver.

        The run goes on with the new plan where P2P alone differs; otherwise it keeps the old one.
        Whether it does, and the fleet with all that follows from the evidence. ValueError where
        there is no plan.
        """
        adopted, new = with_hardware(self.fleet, name, hardware)
        if adopted is not None:
            self.fleet = adopted
        return adopted is not None, new

    def planned_with(self, name: str, hardware: Hardware) -> Fleet:
        """The fleet, had a host other hardware; the run goes on as it is. ValueError where there
        is no plan."""
        return with_hardware(self.fleet, name, hardware)[1]
