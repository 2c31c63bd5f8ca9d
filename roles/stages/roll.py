"""The stage that moves hosts that serve to what is planned, batch by batch."""

from collections.abc import Collection
from functools import partial

from pyinfra import host

from roles.balancer import Member
from roles.declaration import GPU_HOSTS
from roles.fleet import members_by_service
from roles.launch.deploy import move, serve
from roles.stages.batches import by_batches
from roles.stages.run import Run


def roll(run: Run) -> None:
    """Move replicas that serve to what is planned, while balancers send them no requests."""
    name, rolling = host.name, run.rolling
    gpu_host = GPU_HOSTS in run.fleet.host(name).roles

    def turn(index: int) -> None:
        if gpu_host:
            move(
                launch=partial(run.launch, name),
                run_id=run.id,
                turn=partial(rolling.turn, index, name),
                done=rolling.done,
                put_back=partial(rolling.put_back, name),
                batch=index + 1,
            )

    by_batches(run, rolling, turn, proved=partial(_members, run))
    if gpu_host:
        serve(
            launch=partial(run.launch, name),
            left=partial(rolling.left_on, name),
            refused=partial(rolling.refused_on, name),
        )


def _members(run: Run, ids: Collection[str]) -> dict[str, list[Member]]:
    """Planned replicas as members of the upstreams, by service."""
    return {
        service: [member for member in members if member.id in ids]
        for service, members in members_by_service(run.fleet).items()
    }
