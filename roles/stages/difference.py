"""The plan as a run shows it: what of it is new, or differs from what hosts run."""

import click
from pyinfra import host

from roles.declaration import GPU_HOSTS
from roles.fleet import Fleet
from roles.launch import ReplicaChange, grouped, replica_changes
from roles.stages.answers import launch_state
from roles.stages.keys import engine_key_file
from roles.stages.run import Run


def show_difference(run: Run) -> None:
    """Note that this host was looked at; with the last one say what of the plan is to change."""
    with run.lock:
        run.compared.add(host.name)
        waiting = {one.name for one in run.state.active_hosts} - run.compared
        if waiting or run.told_plan:
            return
        run.told_plan = True
    for line in difference(run):
        click.echo(line, err=True)


def difference(run: Run) -> list[str]:
    """What of the plan is new or differs, by replica, with the plan's reasons; one line where it
    is what runs."""
    key = engine_key_file(run)
    if key is not None and not key.expanduser().exists():
        return [
            f"{key} is not there, so the plan was not compared with what runs; the first deploy "
            "makes it"
        ]
    changes: list[ReplicaChange] = []
    seen = []
    for one in run.fleet.with_role(GPU_HOSTS):
        state = launch_state(run, one.name)
        if state is None:
            continue
        seen.append(one.name)
        launch = run.launch(one.name)
        planned = {files.name: files.entry for files in launch.replicas}
        changes += replica_changes(one.name, launch.changes(state), state.manifest, planned)
    lines = [f"  {line}" for line in grouped(changes)]
    if lines:
        return [
            f"The plan changes {_replicas(len(changes))}:",
            *lines,
            *_reasons(run.fleet, changes),
        ]
    hosts = f"{len(seen)} host{'s' if len(seen) != 1 else ''}"
    count = sum(len(plan.replicas) for name in seen for _, plan in run.fleet.on(name))
    return [f"The plan is unchanged: {_replicas(count)} on {hosts}."]


def _replicas(count: int) -> str:
    return f"{count} replica{'s' if count != 1 else ''}"


def _reasons(fleet: Fleet, changes: list[ReplicaChange]) -> list[str]:
    """Why the plan lays replicas over GPUs as it does, where that is new; each reason once."""
    hosts = dict.fromkeys(one.id.partition("/")[0] for one in changes if one.placement_changes)
    told: dict[str, list[str]] = {}
    for name in hosts:
        for _, plan in fleet.on(name):
            for reason in (*plan.reasons, *(f"warning: {one}" for one in plan.warnings)):
                told.setdefault(reason, []).append(name)
    return [f"  why, on {', '.join(names)}: {reason}" for reason, names in told.items()]
