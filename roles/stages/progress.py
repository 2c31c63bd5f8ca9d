"""Progress lines of a run: what it waits for, once a step takes longer than some seconds."""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gevent
from pyinfra.api import State
from pyinfra.api.state import StateStage

from roles.checks import replace_file
from roles.host.outcome import PHASES
from roles.stages.answers import has_answered
from roles.stages.members import planned_on
from roles.stages.run import Run

SILENT_S, RENEWED_S, _LOOK_S = 5, 10, 1
# The file of durations in the folder of reports.
DURATIONS = "durations.json"
Key = tuple[str, str]
"""A host and its step."""


@dataclass(frozen=True)
class Waited:
    """A host that the run waits for: its step, the replicas with their phases, the seconds so far,
    and the seconds of last time."""

    host: str
    work: str
    replicas: tuple[str, ...]
    seconds: float
    last_s: float | None = None


def progress_line(waited: Sequence[Waited], batches: int = 0) -> str:
    """One line about everything that the run waits for; `batches` counts those of the rolling
    update."""
    by_work: dict[str, list[str]] = {}
    for one in waited:
        by_work.setdefault(one.work, []).append(_words(one))
    parts = [f"{work}: {', '.join(hosts)}" for work, hosts in by_work.items()]
    several = batches > 1 and any("batch" in one.work for one in waited)
    of = f" (of {batches} batches)" if several else ""
    return f"... {'; '.join(parts)}{of}"


def _words(one: Waited) -> str:
    names = f" ({', '.join(one.replicas)})" if one.replicas else ""
    last = f", last time {one.last_s:.0f} s" if one.last_s else ""
    return f"{one.host}{names} {one.seconds:.0f} s{last}"


@dataclass(eq=False)
class Progress:
    """Shows what a run waits for, from its start to its end.

    `show` takes a line. `in_place`: each replaces the one before, so it is renewed at each look.
    `since` says when what is waited for began (seconds of a monotonic clock).
    """

    state: State
    show: Callable[[str], None]
    in_place: bool
    since: dict[Key, float] = field(default_factory=dict)
    took: dict[Key, float] = field(default_factory=dict)
    last: dict[Key, float] = field(default_factory=dict)
    _shown_at: float = float("-inf")
    _shown: frozenset[Key] = frozenset()
    _greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """Start to watch the run."""
        self._greenlet = gevent.spawn(self._watch)

    def stop(self) -> None:
        """Stop watching."""
        if self._greenlet is not None:
            self._greenlet.kill(block=False)
        self._end(self.since.keys() - dict(waited_for(self.state)).keys(), time.monotonic())

    def _end(self, keys: Iterable[Key], now: float) -> None:
        """Record the durations of steps that ended well."""
        for key in list(keys):
            took = now - self.since.pop(key)
            if took >= SILENT_S and _ended_well(self.state, key):
                self.took[_whichever(key)] = took

    def _watch(self) -> None:
        while True:
            gevent.sleep(_LOOK_S)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Look at what the run waits for, and show it if it takes long."""
        current = dict(waited_for(self.state))
        self._end(self.since.keys() - current.keys(), now)
        for key in current:
            self.since.setdefault(key, now)
        long = [key for key in current if now - self.since[key] >= SILENT_S]
        renewed = self.in_place or now - self._shown_at >= RENEWED_S
        if not long or (not renewed and self._shown.issuperset(long)):
            return
        self._shown_at, self._shown = now, frozenset(long)
        waited = [
            Waited(*key, current[key], now - self.since[key], self.last.get(_whichever(key)))
            for key in long
        ]
        self.show(progress_line(waited, _batches(self.state)))


def _ended_well(state: State, key: Key) -> bool:
    """Whether a step of a host ended without a failure."""
    name, work = key
    host = next(one for one in state.inventory if one.name == name)
    if host in state.failed_hosts:
        return False
    own = [
        one.operation_meta
        for op_hash, one in state.ops[host].items()
        if ", ".join(sorted(state.get_op_meta(op_hash).names)) == work
    ]
    # Until the run executes, hosts that fail are listed.
    return all(one.is_complete() and not one.did_error() for one in own)


def _whichever(key: Key) -> Key:
    """The name of a step without its batch."""
    return key[0], re.sub(r" [0-9]+\b", "", key[1])


def waited_for(state: State) -> Iterator[tuple[Key, tuple[str, ...]]]:
    """What the run waits for now, with the replicas concerned."""
    if not state.initialised:
        return
    run = Run.begun(state)
    if state.is_executing:
        for host in state.inventory:
            if (op_hash := host.executing_op_hash) is not None:
                work = ", ".join(sorted(state.get_op_meta(op_hash).names))
                phases = host.connector_data.get(PHASES) or {}
                replicas = tuple(_phase(work, *one) for one in sorted(phases.items()))
                yield (host.name, work), replicas or _replicas(run, host.name, work)
    elif state.current_stage is StateStage.Connect:
        for host in state.inventory:
            if state.is_host_in_limit(host) and not host.connected:
                yield (host.name, "connecting"), ()
    elif state.current_stage is StateStage.Prepare and run is not None:
        for host in state.active_hosts:
            if not has_answered(run, host.name):
                yield (host.name, "looking at what is there"), ()


def _phase(work: str, name: str, phase: str) -> str:
    """The phase of a replica or an engine, without what the step's name says already."""
    return phase if name in work else f"{name}: {phase}"


def _replicas(run: Run | None, name: str, work: str) -> tuple[str, ...]:
    """The replicas of a host that a step concerns."""
    if run is None or not work.startswith("Launch"):
        return ()
    if "batch" not in work:
        return tuple(replica.name for replica in planned_on(run.fleet, name))
    turn = run.rolling.turns.get(name)
    return tuple(id.partition("/")[2] for id in turn.restarts) if turn else ()


def _batches(state: State) -> int:
    run = Run.begun(state)
    return run.rolling.batches if run is not None else 0


def read_durations(folder: Path) -> dict[Key, float]:
    """The durations of earlier runs; empty if none are known."""
    try:
        data: Mapping[str, Mapping[str, float]] = json.loads((folder / DURATIONS).read_text())
        return {
            (host, work): float(seconds)
            for host, own in data.items()
            for work, seconds in own.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_durations(folder: Path, durations: Mapping[Key, float], hosts: Iterable[str]) -> None:
    """Write durations, those of these hosts only. Raises OSError."""
    data: dict[str, dict[str, float]] = {}
    names = set(hosts)
    for (host, work), seconds in sorted(durations.items()):
        if host in names:
            data.setdefault(host, {})[work] = round(seconds)
    replace_file(folder / DURATIONS, json.dumps(data, indent=1) + "\n")
