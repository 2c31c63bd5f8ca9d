"""The state of one run: no other module under roles/ keeps state."""

import secrets
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from gevent.lock import RLock
from pyinfra import host
from pyinfra.api import State

from roles.balancer import BalancerState
from roles.checks import Report
from roles.checks.deploy import report_of
from roles.declaration import Declaration
from roles.fleet import Fleet, host_launch, with_hardware
from roles.fleet.checked import checked
from roles.hardware import Hardware, HardwareReport
from roles.host.operations import Lease
from roles.launch import Change, HostLaunch, LaunchState
from roles.reboot.operations import Reboots
from roles.stages.members import Found, changes_of, planned_on, unjoined
from roles.stages.rolling import Rolling, reached
from roles.stages.seen import Seen
from roles.watchdog import Quarantine, left_out

Answer = TypeVar("Answer")

# The attribute of pyinfra's state that holds the run.
_NAME = "pyinfra_llm_run"


def run_id(now: datetime, random: int) -> str:
    """The id of a run that begins at `now`, such as 20261129T160312Z-4f2a; ids sort by time."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{random & 0xFFFF:04x}"


@dataclass(eq=False)
class Run:
    """One pyinfra run from its start to its report.

    `fleet` is frozen; `replan` and `observed` replace it where there is new evidence. `rolling` is
    the rolling update of engines, `found` what hosts ran before it and what is to be done there.
    `restarts` is the rolling update of reboots, `reboots` the hosts that need one. `seen` is what
    the run has seen of replicas, `balancers` the states of balancers by host. `compared` are the
    hosts whose plan was compared with what they run, `would_change` those where the two differ.
    `busy` are hosts on which another deploy is at work, `quarantines` are those of each host,
    `leases` the hosts that this run holds. `lock` guards what must be done once although hosts are
    prepared in parallel.
    """

    id: str
    state: State
    file: Path
    declaration: Declaration
    fleet: Fleet
    reboots: Reboots = field(default_factory=Reboots)
    found: dict[str, Found] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    restarts: Rolling | None = None
    loaded: bool = False
    compared: set[str] = field(default_factory=set)
    plan_shown: bool = False
    would_change: set[str] = field(default_factory=set)
    seen: Seen = field(default_factory=Seen)
    balancers: dict[str, BalancerState] = field(default_factory=dict)
    quarantines: dict[str, tuple[Quarantine, ...]] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    lock: RLock = field(default_factory=RLock)
    _answers: dict[str, dict[Hashable, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rolling = Rolling(
            self.state,
            lambda: self.fleet,
            lambda settings: settings.launch.roll_batches,
            lambda: self.found,
            changes_of,
            self.busy,
        )
        self.report.run = self.id

    @property
    def report(self) -> Report:
        """The checks of this run."""
        return report_of(self.state)

    def note(
        self, name: str, state: LaunchState, changes: Sequence[Change], fresh: bool = False
    ) -> None:
        """Note what a host runs and what is to be done there, for the rolling update."""
        out = unjoined(self.fleet, name, state, reached(self.state))
        own = tuple(one for one in changes if one.subject not in out)
        self.found[name] = Found(state, own, fresh and bool(own))
        self.saw(name, state)

    def saw(self, name: str, state: LaunchState) -> None:
        """Note the states of replicas that a host reports."""
        self.seen.units(name, {one: unit.sight for one, unit in state.units.items()})

    def launch(self, name: str) -> HostLaunch:
        """What a host is to run by the run's present plan, and what of it is left out."""
        left_out = frozenset({*self.left_out(name), *self.unjoined(name)})
        return replace(host_launch(self.fleet, name), left_out=left_out)

    def unjoined(self, name: str, state: LaunchState | None = None) -> dict[str, str]:
        """The parts of a host that stay stopped, as this run does not reach all of their hosts, and
        what to do. `state` is the host's, where the run has not noted it yet."""
        known = self.found[name].state if name in self.found else state
        return {} if known is None else unjoined(self.fleet, name, known, reached(self.state))

    def left_out(self, name: str) -> dict[str, Quarantine]:
        """The planned replicas of a host that quarantines keep from running, and which: its own,
        and those of the other hosts of a replica."""
        planned = planned_on(self.fleet, name)
        found = left_out({one.name: one.gpus for one in planned}, self.quarantines.get(name, ()))
        for replica in planned:
            for other, gpus in replica.members:
                if other != name:
                    elsewhere = self.quarantines.get(other, ())
                    found = left_out({replica.name: gpus}, elsewhere) | found
        return found

    @classmethod
    def of(cls, state: State) -> "Run":
        """The run of a pyinfra state; the first call begins it."""
        run = cls.begun(state)
        if run is None:
            run = cls._begun(state)
            setattr(state, _NAME, run)
        return run

    @classmethod
    def begun(cls, state: State) -> "Run | None":
        """The run of a pyinfra state, or None where it has not begun."""
        return getattr(state, _NAME, None)

    @classmethod
    def current(cls) -> "Run":
        """The run of pyinfra's current host."""
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
        """A host's answer to a question, kept until the host is `changed`.

        None, where the host gave no answer, is not kept.
        """
        known = self._answers.setdefault(name, {})
        if question not in known:
            found = ask()
            if found is None:
                return None
            known[question] = found
        return known[question]  # type: ignore[return-value]

    def known(self, name: str, question: Hashable) -> Any:
        """A host's kept answer to a question, or None."""
        return self._answers.get(name, {}).get(question)

    def changed(self, name: str) -> None:
        """Forget a host's answers, because something was done on it."""
        self._answers.pop(name, None)
        self.seen.touched(name)

    def observed(self, name: str, report: HardwareReport) -> None:
        """Put what a host reports of its devices and driver into the fleet."""
        known = self.fleet.host(name)
        driver = report.hardware.driver_version if report.hardware else None
        unready = known.hardware is not None and bool(report.blocking_faults)
        seen = replace(known, devices=report.devices, driver_version=driver, unready=unready)
        hosts = tuple(seen if one.name == name else one for one in self.fleet.hosts)
        self.fleet = replace(self.fleet, hosts=hosts)

    def replan(self, name: str, hardware: Hardware) -> tuple[bool, Fleet]:
        """Plan again with new hardware of a host: links, slices, verdicts or driver.

        The run goes on with the new plan if it differs in P2P alone; otherwise it keeps the old
        one. Returns whether it goes on with the new plan, and the fleet with that plan. ValueError
        where there is no plan.
        """
        adopted, new = with_hardware(self.fleet, name, hardware)
        if adopted is not None:
            self.fleet = adopted
        return adopted is not None, new

    def planned_with(self, name: str, hardware: Hardware) -> Fleet:
        """The fleet as it would be with other hardware of a host; the run keeps its own.

        ValueError where there is no plan.
        """
        return with_hardware(self.fleet, name, hardware)[1]
