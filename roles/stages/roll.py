"""The stage of the rolling update: moves replicas that serve to what is planned, by batches."""

from collections.abc import Collection, Iterable
from functools import partial

from pyinfra import host

from roles.balancer import Member
from roles.declaration import GPU_HOSTS
from roles.fleet import members_by_service
from roles.launch.deploy import move, serve
from roles.rolling import HostStep
from roles.stages.batches import by_batches
from roles.stages.run import Run


def roll(run: Run) -> None:
    """Move replicas that serve to what is planned, while balancers send them no requests."""
    name, rolling = host.name, run.rolling
    gpu_host = GPU_HOSTS in run.fleet.host(name).roles

    def add_step(index: int) -> None:
        if gpu_host:
            move(
                launch=partial(run.launch, name),
                run_id=run.id,
                step=partial(_step, run, index, name),
                on_moved=partial(_on_moved, run, name),
                on_restored=partial(_on_restored, run, name),
                batch=index + 1,
            )

    by_batches(run, rolling, add_step, proved=partial(_members, run))
    if gpu_host:
        serve(
            launch=partial(run.launch, name),
            skip_reasons=partial(rolling.skipped_on, name),
            refusals=partial(rolling.refused_on, name),
            on_result=partial(_on_checked, run, name),
        )


def _step(run: Run, index: int, name: str) -> HostStep | None:
    step = run.rolling.turn(index, name)
    if step is not None:
        run.seen.touched(name, [id.partition("/")[2] for id in (*step.restarts, *step.removals)])
    return step


def _on_moved(run: Run, name: str, ids: Collection[str]) -> None:
    run.rolling.done(ids, name)
    run.seen.proved(_on(name, ids))


def _on(name: str, ids: Iterable[str]) -> list[str]:
    """Replicas as they are seen on a host: a part of a replica has the replica's name."""
    return [f"{name}/{id.partition('/')[2]}" for id in ids]


def _on_restored(run: Run, name: str, failed: Collection[str]) -> None:
    run.rolling.put_back(name, failed)
    turn = run.rolling.turns.get(name)
    own = (*turn.restarts, *turn.removals) if turn else ()
    run.seen.proved(_on(name, [id for id in own if id in run.rolling.restored]))


def _on_checked(run: Run, name: str, names: Collection[str], serve: bool) -> None:
    """Record whether a host's replicas serve; if one does not, it is unknown which of them do."""
    if serve:
        run.seen.proved([f"{name}/{one}" for one in names])
    else:
        run.seen.touched(name)


def _members(run: Run, ids: Collection[str]) -> dict[str, list[Member]]:
    """Planned replicas as members of the upstreams, by service."""
    return {
        service: [member for member in members if member.id in ids]
        for service, members in members_by_service(run.fleet).items()
    }
