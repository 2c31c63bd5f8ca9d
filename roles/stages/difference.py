"""The part of the plan that a run shows: what is new, or differs from what hosts run."""

from collections.abc import Mapping, Sequence

import click
from pyinfra import host

from roles.declaration import BALANCERS, GPU_HOSTS
from roles.fleet import Fleet
from roles.launch import replica_changes
from roles.plan import ReplicaChange, grouped
from roles.stages.answers import launch_state
from roles.stages.drained import people_drains
from roles.stages.ending import changes_shown, earlier_durations
from roles.stages.keys import engine_key_file
from roles.stages.members import Found, changes_of
from roles.stages.progress import Key
from roles.stages.rolling import Rolling
from roles.stages.run import Run

# The steps whose durations are kept, by the names that `progress` gives them.
STARTED, MOVED = "Launch | Start replicas where none serves", "Launch | Move batch"


def show_difference(run: Run) -> None:
    """Record that this host was compared; the last host prints how the plan differs."""
    with run.lock:
        run.compared.add(host.name)
        waiting = {one.name for one in run.state.active_hosts} - run.compared
        if waiting or run.plan_shown:
            return
        run.plan_shown = True
    for line in difference(run):
        click.echo(line, err=True)


def difference(run: Run) -> list[str]:
    """How the plan differs from what runs, by replica, with reasons; one line where it does not."""
    key = engine_key_file(run)
    if key is not None and not key.expanduser().exists():
        return [
            f"{key} is not there, so the plan was not compared with what runs; the first deploy "
            "makes it"
        ]
    changes: list[ReplicaChange] = []
    found: dict[str, Found] = {}
    for one in run.fleet.with_role(GPU_HOSTS):
        state = launch_state(run, one.name)
        if state is None:
            continue
        launch = run.launch(one.name)
        own = tuple(launch.changes(state))
        found[one.name] = Found(state, own, bool(own) and not state.serving)
        planned = {files.name: files.entry for files in launch.replicas}
        changes += replica_changes(one.name, own, state.manifest, planned)
    lines = [f"  {line}" for line in grouped(changes)]
    beside = [f"{one}; deploys/undrain.py ends it" for one in people_drains(run)]
    beside += [
        f"{one.name}/{name} is left out: {quarantine}; deploys/quarantine.py lifts it"
        for one in run.fleet.with_role(GPU_HOSTS)
        for name, quarantine in run.left_out(one.name).items()
    ]
    if lines:
        fresh, batches = _steps(run, found)
        run.would_change |= {*fresh, *(name for batch in batches for name in batch)}
        if batches:
            run.would_change |= {one.name for one in run.fleet.with_role(BALANCERS)}
        changes_shown(run)
        return [
            f"The plan changes {_replicas(len(changes))}:",
            *lines,
            *_reasons(run.fleet, changes),
            *(f"  batch {index + 1}: {', '.join(batch)}" for index, batch in enumerate(batches)),
            *(f"  {line}" for line in expected(fresh, batches, earlier_durations(run))),
            *beside,
        ]
    hosts = f"{len(found)} host{'s' if len(found) != 1 else ''}"
    count = sum(len(plan.replicas) for name in found for _, plan in run.fleet.on(name))
    return [f"The plan is unchanged: {_replicas(count)} on {hosts}.", *beside]


def _steps(run: Run, found: Mapping[str, Found]) -> tuple[list[str], list[list[str]]]:
    """The hosts that start at once, and the hosts of each batch of the rolling update."""
    fresh = [name for name, one in found.items() if one.fresh]
    preview = Rolling(
        run.state,
        lambda: run.fleet,
        lambda settings: settings.launch.roll_batches,
        lambda: found,
        changes_of,
    )
    batches = [list(batch.hosts) for batch in preview.plan().batches]
    return fresh, batches


def expected(
    fresh: Sequence[str], batches: Sequence[Sequence[str]], took: Mapping[Key, float]
) -> list[str]:
    """How many batches there are and how long they should take, by what each host took before."""
    lines = []
    if fresh and (known := _known(fresh, (STARTED, MOVED), took)):
        lines.append(f"expected: {_sum([fresh], known)} to start ({_by_host(fresh, known)})")
    hosts = [name for batch in batches for name in batch]
    if hosts:
        known = _known(hosts, (MOVED, STARTED), took)
        count = f"{len(batches)} batch{'es' if len(batches) != 1 else ''}"
        if known:
            lines.append(f"expected: {_sum(batches, known)} for {count} ({_by_host(hosts, known)})")
        else:
            lines.append(f"expected: {count}; how long is not known before it was done once")
    return lines


def _known(
    hosts: Sequence[str], works: Sequence[str], took: Mapping[Key, float]
) -> dict[str, float]:
    """Seconds by host, of the first of these steps whose duration is known."""
    return {
        name: next(took[name, work] for work in works if (name, work) in took)
        for name in hosts
        if any((name, work) in took for work in works)
    }


def _sum(batches: Sequence[Sequence[str]], known: Mapping[str, float]) -> str:
    """The expected seconds of all batches, one after the other. The hosts of a batch work in
    parallel; a host without a duration counts as the slowest one."""
    slowest = max(known.values())
    total = sum(max(known.get(name, slowest) for name in batch) for batch in batches)
    return f"{total:.0f} s"


def _by_host(hosts: Sequence[str], known: Mapping[str, float]) -> str:
    durations = ", ".join(f"{name} {known[name]:.0f} s" for name in hosts if name in known)
    return f"last time {durations}"


def _replicas(count: int) -> str:
    return f"{count} replica{'s' if count != 1 else ''}"


def _reasons(fleet: Fleet, changes: list[ReplicaChange]) -> list[str]:
    """Why the plan places replicas on GPUs as it does, where that is new; each reason once."""
    hosts = dict.fromkeys(one.id.partition("/")[0] for one in changes if one.placement_changes)
    hosts_by_reason: dict[str, list[str]] = {}
    for name in hosts:
        for _, plan in fleet.on(name):
            for reason in (*plan.reasons, *(f"warning: {one}" for one in plan.warnings)):
                hosts_by_reason.setdefault(reason, []).append(name)
    return [f"  why, on {', '.join(names)}: {reason}" for reason, names in hosts_by_reason.items()]
