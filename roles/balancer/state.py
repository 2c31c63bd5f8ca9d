"""The state of a balancer: its upstreams and drains, as kept in /etc/llm/balancer/state.json. Pure.

It holds no secrets. All changes of a state are functions of this module.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from pydantic import StringConstraints, TypeAdapter, ValidationError

from roles.balancer.drains import Drain, Owner, covered, host_target, in_words, is_wide
from roles.balancer.routes import Member, Route
from roles.balancer.settings import BalancerSettings
from roles.balancer.upstreams import Upstream, healthy
from roles.host import Part, Sections, require

STATE = "/etc/llm/balancer/state.json"
SCHEMA = 1
# Owners whose drains the last stage of a deploy decides again; those of the others stay.
RECOMPUTED = ("inventory", "rolling-update")


@dataclass(frozen=True)
class BalancerState:
    """The upstreams and drains, and after how many failures a server is left out for how long."""

    upstreams: tuple[Upstream, ...] = ()
    drains: tuple[Drain, ...] = ()
    max_fails: int = 2
    fail_timeout_s: int = 10

    @property
    def members(self) -> tuple[Member, ...]:
        """The members of all upstreams."""
        return tuple(member for upstream in self.upstreams for member in upstream.members)

    @property
    def ids(self) -> frozenset[str]:
        """The ids of all members."""
        return frozenset(member.id for member in self.members)

    def upstream(self, service: str) -> Upstream | None:
        """The upstream of a service, if there is one."""
        return next((one for one in self.upstreams if one.service == service), None)


_STATE = TypeAdapter(BalancerState)
_NAME = TypeAdapter(Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")])


PART = Part("balancer", f"part state; cat {STATE}\n")


def parse_part(sections: Sections) -> BalancerState | None:
    """Read the section of `PART`; None for a balancer that serves nothing yet, ValueError where it
    is malformed or incomplete."""
    require(sections, ("state",), "its balancer")
    return parse_state(sections["state"])


def dump_state(state: BalancerState) -> str:
    """The text of state.json."""
    known = asdict(state, dict_factory=_without_none)
    return json.dumps({"schema": SCHEMA} | known, indent=1) + "\n"


def _without_none(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    # What is not known is not written: a field that comes changes no file.
    return {name: value for name, value in fields if value is not None}


def parse_state(text: str) -> BalancerState | None:
    """The state in the text of state.json, None for an empty one; ValueError for any other text."""
    if not text.strip():
        return None
    try:
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            raise ValueError(f"its schema is {data['schema']}, not {SCHEMA}")
        state = _STATE.validate_python(data)
        # Names become part of the program's configuration.
        for upstream in state.upstreams:
            _NAME.validate_python(upstream.name)
    except ValidationError as error:
        raise ValueError(_unreadable(error.errors()[0]["msg"])) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(_unreadable(str(error))) from None
    return state


def _unreadable(why: str) -> str:
    return (
        f"{STATE} cannot be read: {why}; if no replica is drained on purpose, write "
        f"{dump_state(BalancerState())!r} into it: the end of a deploy fills it"
    )


def drain(
    state: BalancerState,
    replicas: Collection[str],
    owner: Owner,
    run: str,
    since: str,
    interrupted: Collection[str] = (),
) -> tuple[BalancerState, tuple[str, ...]]:
    """The state with these members drained, and the ids of those that cannot be drained.

    `replicas` are ids; "gpu1/*" means all members on a host, planned or not. Members are not
    drained where their upstream would have no healthy member left, unless the interruption of its
    service was announced (`interrupted`). A drain that the owner already has stays as it is.
    Unknown ids are ignored.
    """
    held = {one.replica for one in state.drains if one.owner == owner}
    new: list[Drain] = []
    refused: list[str] = []
    for upstream in state.upstreams:
        wanted = [one for one in upstream.members if _matches(one.id, replicas)]
        ids = [one.id for one in wanted if not covered([one], held)]
        announced = upstream.service in interrupted
        added = [Drain(id, owner, run, since, announced) for id in ids]
        in_now = healthy(upstream, state.drains)
        left = in_now - set(ids)
        if in_now and not left and not announced:
            refused += [id for id in ids if id in in_now]
            added = [one for one in added if one.replica not in in_now]
        new += added
    return replace(state, drains=(*state.drains, *new)), tuple(refused)


def in_service(state: BalancerState) -> frozenset[str]:
    """The ids of members that get requests and are neither failed nor drained."""
    return frozenset(id for one in state.upstreams for id in healthy(one, state.drains))


def undrain(
    state: BalancerState,
    replicas: Collection[str],
    owner: Owner,
    proved: Mapping[str, Sequence[Member]] | None = None,
) -> BalancerState:
    """The state without an owner's drains of these members, named as for `drain`.

    `proved` are members, by service, that have just answered a completion. They replace the members
    of the same id, or are added, and earlier failures of theirs are forgotten.
    """
    left = tuple(
        one for one in state.drains if one.owner != owner or not _matches(one.replica, replicas)
    )
    upstreams = tuple(
        _with_proved(one, (proved or {}).get(one.service, ())) for one in state.upstreams
    )
    return replace(state, upstreams=upstreams, drains=left)


def _with_proved(upstream: Upstream, proved: Sequence[Member]) -> Upstream:
    new = {member.id: member for member in proved}
    kept = tuple(new.pop(member.id, member) for member in upstream.members)
    ids = {member.id for member in proved}
    failures = {id: why for id, why in upstream.failures.items() if id not in ids}
    return replace(upstream, members=(*kept, *new.values()), failures=failures)


def drain_owners(state: BalancerState) -> dict[str, frozenset[str]]:
    """The owners of drains, by the member's id."""
    found: dict[str, frozenset[str]] = {}
    for drain in state.drains:
        ids = {member.id for member in covered(state.members, [drain.replica])}
        for id in {*ids, drain.replica}:
            found[id] = found.get(id, frozenset()) | {drain.owner}
    return found


def _matches(id: str, replicas: Collection[str]) -> bool:
    return id in replicas or host_target(id.partition("/")[0]) in replicas


def drained_by_person(state: BalancerState, wanted: Drain) -> tuple[BalancerState, tuple[str, ...]]:
    """The state with a person's drain of a host, a replica or a GPU, and the services that it would
    leave without a healthy member: then the state is as before.

    One that is there already stays as it is.
    """
    if any(one.owner == wanted.owner and one.replica == wanted.replica for one in state.drains):
        return state, ()
    new = replace(state, drains=(*state.drains, wanted))
    emptied = tuple(
        one.service
        for one in state.upstreams
        if not wanted.interruption and healthy(one, state.drains) and not healthy(one, new.drains)
    )
    return (state, emptied) if emptied else (new, ())


def undrained_by_person(state: BalancerState, target: str) -> BalancerState:
    """The state without a person's drain of exactly this host, replica or GPU; it is proved by
    then, so earlier failures of its members are forgotten."""
    ids = {member.id for member in covered(state.members, [target])}
    left = [one for one in state.drains if one.owner != "operator" or one.replica != target]
    upstreams = [
        replace(one, failures={id: why for id, why in one.failures.items() if id not in ids})
        for one in state.upstreams
    ]
    return replace(state, upstreams=tuple(upstreams), drains=tuple(left))


def drains_of_people(drains: Iterable[Drain]) -> tuple[Drain, ...]:
    """What people have drained, each host, replica or GPU once."""
    found = {one.replica: one for one in drains if one.owner == "operator"}
    return tuple(found.values())


def drain_problem(
    states: Collection[BalancerState], wanted: Drain, forbidden: Collection[str]
) -> str:
    """Why a person may not drain this, and what to do; "" where it may be.

    `states` are those of all balancers, `forbidden` the services that are never interrupted.
    """
    never, emptied = set(forbidden), set[str]()
    for one in states:
        emptied |= set(drained_by_person(one, replace(wanted, interruption=False))[1])
    if not emptied or (wanted.interruption and not emptied & never):
        return ""
    remedy = (
        "say --data interrupt=true to interrupt it"
        if not emptied & never
        else ("the inventory forbids to interrupt it (interruptible)")
    )
    return (
        f"{in_words(wanted.replica)} is not drained: nothing else serves "
        f"{', '.join(sorted(emptied))}; {remedy}"
    )


def planned_state(
    old: BalancerState | None,
    routes: Sequence[Route],
    settings: BalancerSettings,
    run: str,
    since: str,
    people: Collection[Drain] = (),
) -> BalancerState:
    """The state that follows from the routes, before their members are asked for completions.

    Drains of operators and watchdogs stay; those of hosts and GPUs also where nothing is planned
    there. `people` are drains of operators that another balancer has. The inventory's drains are
    those that it declares now. Drains of a rolling update end.
    """
    upstreams = tuple(Upstream(r.service, r.upstream, r.members) for r in routes)
    new = BalancerState(upstreams, (), settings.max_fails, settings.fail_timeout_s)
    before = old.drains if old else ()
    held = {one.replica for one in drains_of_people(before)}
    before += tuple(one for one in people if one.replica not in held)
    declared = [id for route in routes for id in sorted(route.drained)]
    there = {one.replica: one for one in before if one.owner == "inventory"}
    stay = [one for one in before if _stays(one, new)]
    drains = [there.get(id) or Drain(id, "inventory", run, since) for id in declared]
    return replace(new, drains=(*stay, *drains))


def _stays(drain: Drain, state: BalancerState) -> bool:
    if drain.owner in RECOMPUTED:
        return False
    return is_wide(drain.replica) or drain.replica in state.ids


def with_results(
    state: BalancerState,
    old: BalancerState | None,
    failures: Mapping[str, str],
    unanswered: Collection[str],
) -> BalancerState:
    """The planned state with its failures; `unanswered` services keep their old upstream."""

    def after(upstream: Upstream) -> Upstream:
        before = old.upstream(upstream.service) if old else None
        if before and upstream.service in unanswered:
            return replace(before, name=upstream.name)
        own = {m.id: failures[m.id] for m in upstream.members if m.id in failures}
        return replace(upstream, failures=own)

    found = replace(state, upstreams=tuple(map(after, state.upstreams)))
    kept = [one for one in found.drains if is_wide(one.replica) or one.replica in found.ids]
    return replace(found, drains=tuple(kept))


def removed_members(state: BalancerState, routes: Sequence[Route]) -> tuple[str, ...]:
    """The ids of members of an upstream that no plan has any more."""
    ids = {member.id for route in routes for member in route.members}
    return tuple(m.id for one in state.upstreams for m in one.members if m.id not in ids)


def removed_message(replica: str, taken_down: bool) -> str:
    """The warning about such a member; its host may be out of reach for good."""
    then = "" if taken_down else "; its host may still run it"
    return f"{replica} was in the upstream and is in no plan any more: it is removed{then}"
