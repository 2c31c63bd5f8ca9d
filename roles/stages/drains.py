"""The stages by which a person drains a host, a replica or a GPU, and undrains it."""

from functools import partial

from pyinfra import host

from roles.balancer import (
    Balancer,
    Drain,
    Member,
    balancer_of,
    covered,
    drain_problem,
    in_words,
    now,
)
from roles.balancer.operations import ask_drains, drain_by_person, undrain_by_person
from roles.declaration import BALANCERS
from roles.fleet import REASON, TARGETS, members_by_service, named_target
from roles.fleet.checked import RefusedError
from roles.hardware import readings
from roles.host.outcome import warn
from roles.stages.admission import admit_as_deployed
from roles.stages.barrier import barrier
from roles.stages.drained import people_drains
from roles.stages.hold import hold
from roles.stages.messages import wants
from roles.stages.rolling import balancers_missing, reached
from roles.stages.run import Run
from roles.stages.validation import planned_replicas
from roles.validation.deploy import validate_host


def drain(run: Run) -> None:
    """Let every balancer send no new requests to what `--data` names: host=HOST, replica=HOST/NAME
    or gpu=HOST/INDEX, with reason=WHY. It is refused where an upstream would be empty, unless
    interrupt=true."""
    balancer, target = _balancer(run), _target()
    interrupt, reason = wants("interrupt", default=False), str(host.data.get(REASON))
    wanted = Drain(target, "operator", run.id, now(), interrupt, reason)
    _ask(run, balancer)
    if BALANCERS in run.fleet.host(host.name).roles:
        refusal = partial(_drain_refusal, run, wanted)
        drain_by_person(
            name=f"Drain {in_words(target)}",
            balancer=balancer,
            wanted=wanted,
            refusal=refusal,
            run=run.id,
        )


def undrain(run: Run) -> None:
    """End the drain of what `--data` names, once its replicas were proved on their host."""
    balancer, target = _balancer(run), _target()
    _ask(run, balancer)
    _prove(run, target)
    barrier("Replicas are proved")
    if BALANCERS in run.fleet.host(host.name).roles:
        undrain_by_person(
            name=f"Undrain {in_words(target)}",
            balancer=balancer,
            target=target,
            refusal=partial(_undrain_refusal, run, target),
            run=run.id,
        )


def _ask(run: Run, balancer: Balancer) -> None:
    """Ask this balancer for its state, before any of them is changed."""
    if BALANCERS in run.fleet.host(host.name).roles:
        hold(run)
        ask_drains(
            name="See who is drained",
            balancer=balancer,
            note=partial(run.balancers.__setitem__, host.name),
        )
    barrier("Balancers were asked")


def _balancer(run: Run) -> Balancer:
    """The program of the balancers; RefusedError where not all of them are in the run."""
    settings = run.fleet.settings.balancer
    if settings is None or not run.fleet.with_role(BALANCERS):
        raise RefusedError("the inventory has no balancer, so nothing can be drained")
    if missing := balancers_missing(run.fleet, reached(run.state)):
        raise RefusedError(f"{missing}\nNothing was done.")
    return balancer_of(settings)


def _target() -> str:
    """What `--data` names; the command line was checked: it is one thing, well written."""
    # `host.data.host` is pyinfra's own.
    data = host.data.dict()
    kind = next(one for one in TARGETS if one in data)
    return named_target(kind, str(data[kind]))


def _drain_refusal(run: Run, wanted: Drain) -> str:
    """Why nothing may be drained, or ""; the same for every balancer."""
    forbidden = [one.name for one in run.fleet.settings.services if not one.interruptible]
    if not run.balancers:
        return "no balancer serves anybody yet: deploy first"
    return drain_problem(run.balancers.values(), wanted, forbidden)


def _undrain_refusal(run: Run, target: str) -> str:
    """Why nothing may be undrained, or ""; the same for every balancer."""
    if not _is_drained(run, target):
        others = ", ".join(in_words(one.replica) for one in people_drains(run)) or "nothing"
        warn(f"{in_words(target)} is not drained by a person; drained are: {others}")
        return ""
    failed = {one.name for one in run.state.failed_hosts}
    for name in dict.fromkeys(one.host for one in _to_prove(run, target)):
        if name not in reached(run.state):
            return f"{name} is not in this run, so nothing proves its replicas: add --limit {name}"
        if name in failed:
            return f"{in_words(target)} stays drained: {name} did not pass its checks, see there"
    return ""


def _is_drained(run: Run, target: str) -> bool:
    return any(one.replica == target for one in people_drains(run))


def _to_prove(run: Run, target: str) -> list[Member]:
    """The planned replicas that a drain holds for."""
    members = [one for own in members_by_service(run.fleet).values() for one in own]
    return covered(members, [target])


def _prove(run: Run, target: str) -> None:
    """Validate what is to be undrained, on the host that answers: its GPUs, completions, and
    load."""
    this_host, own = run.fleet.host(host.name), _to_prove(run, target)
    names = [one.id.partition("/")[2] for one in own if one.host == host.name]
    if not names or this_host.hardware is None or not admit_as_deployed(run):
        return
    validate_host(
        settings=run.fleet.settings.validation,
        replicas=[one for one in planned_replicas(run.fleet, this_host) if one.name in names],
        tool=readings.tool_of(this_host.hardware.gpus),
        _if=[lambda: _is_drained(run, target)],
    )
