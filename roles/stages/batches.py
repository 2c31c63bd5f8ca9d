"""The batches of a rolling update: each is drained, moved and undrained."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from pyinfra import host
from pyinfra.api import operation

from roles.balancer import Member, balancer_of
from roles.balancer.operations import drain, resume_drains, undrain
from roles.declaration import BALANCERS
from roles.host.outcome import say, warn
from roles.rolling import ROLLING_UPDATE
from roles.stages.barrier import barrier
from roles.stages.rolling import Rolling
from roles.stages.run import Run


def by_batches(
    run: Run,
    rolling: Rolling,
    turn: Callable[[int], None],
    proved: Callable[[Collection[str]], Mapping[str, Sequence[Member]]] = lambda ids: {},
) -> None:
    """Run a rolling update by batches; balancers send no requests to the replicas of a batch.

    Batches are planned when the run executes, so operations are added for the largest number of
    batches. `turn` adds this host's operations of one batch. `proved` returns replicas that serve
    as planned as members of upstreams, by service.
    """
    settings = run.fleet.settings.balancer
    balances = BALANCERS in run.fleet.host(host.name).roles and settings is not None
    if balances and settings is not None:
        resume_drains(
            name="See who gets requests",
            balancer=balancer_of(settings),
            wanted=rolling.has_changes,
            serving=lambda: proved(rolling.unchanged()),
            owner=ROLLING_UPDATE,
            note=rolling.balanced,
            run=run.id,
        )
    _announced(name="Plan the rolling update", rolling=rolling)
    for index in host.loop(range(rolling.slots)):
        if balances and settings is not None:
            drain(
                name=f"Drain batch {index + 1}",
                balancer=balancer_of(settings),
                replicas=partial(rolling.drained, index),
                owner=ROLLING_UPDATE,
                run=run.id,
                interrupted=partial(rolling.interrupted, index),
                note_kept=rolling.undrainable.update,
            )
        barrier(f"Batch {index + 1} gets no requests")
        turn(index)
        barrier(f"Batch {index + 1} is over")
        if balances and settings is not None:
            undrain(
                name=f"Undrain batch {index + 1}",
                balancer=balancer_of(settings),
                replicas=partial(rolling.undrained, index),
                owner=ROLLING_UPDATE,
                run=run.id,
                proved=lambda: proved(rolling.moved),
            )


@operation()
def _announced(rolling: Rolling):
    """Announce what a rolling update interrupts or leaves as it is; changes nothing."""
    host.noop("nothing changes by planning")
    if host.state.is_executing and rolling.announce():
        plan = rolling.plan()
        for interruption in plan.interruptions:
            say(str(interruption))
        for skipped in plan.skipped:
            warn(str(skipped))
    return
    yield
