"""Drains by owner, and what a deploy makes of the state that it finds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.balancer import BalancerState, Upstream
from roles.balancer.drains import Drain, Owner, gpu_target, host_target
from roles.balancer.state import (
    drain,
    drain_owners,
    drained_by_person,
    dump_state,
    parse_state,
    planned_state,
    removed_members,
    undrain,
    undrained_by_person,
    with_results,
)
from roles.balancer.upstreams import healthy, servers

from .fleets import member, members, route, settings, state

CHAT = route()
CODE = route("code", *members("code", gpu1=[9000], gpu2=[9000]))
IDS = [one.id for one in CHAT.members]
OWNERS: list[Owner] = ["operator", "rolling-update", "watchdog"]


def after(
    old: BalancerState, *replicas: str, owner: Owner = "operator", interrupted: tuple[str, ...] = ()
) -> BalancerState:
    return drain(old, replicas, owner, "run", "now", interrupted)[0]


def outs(found: BalancerState) -> set[str]:
    return {
        server.member.id
        for upstream in found.upstreams
        for server in servers(upstream, found.drains)
        if server.out
    }


def test_a_drain_says_who_and_when():
    (found,) = after(state(), "gpu1/chat-0").drains
    assert found == Drain("gpu1/chat-0", "operator", "run", "now")


def test_a_whole_host_is_drained_in_all_services():
    found = after(state(CHAT, CODE), "gpu1/*")
    assert outs(found) == {"gpu1/chat-0", "gpu1/chat-1", "gpu1/code-0"}
    assert undrain(found, ["gpu1/*"], "operator") == state(CHAT, CODE)


def test_each_owner_takes_back_its_own():
    found = after(after(state(), IDS[0]), IDS[0], owner="watchdog")
    assert len(found.drains) == 2 and outs(found) == {IDS[0]}
    assert undrain(found, [IDS[0]], "rolling-update") == found
    found = undrain(found, [IDS[0]], "operator")
    assert outs(found) == {IDS[0]}
    assert outs(undrain(found, [IDS[0]], "watchdog")) == set()


def test_draining_twice_is_draining_once():
    once = after(state(), *IDS[:2])
    assert after(once, *IDS[:2]) == once


def test_the_last_healthy_member_stays_in():
    found = after(state(), *IDS[:3])
    again, refused = drain(found, [IDS[3]], "rolling-update", "run", "now")
    assert (again, refused) == (found, (IDS[3],))
    # Drained by somebody else already: one owner more changes nothing for the upstream.
    assert len(after(found, IDS[0], owner="watchdog").drains) == 4


def test_a_failing_member_does_not_count_as_left():
    upstream = Upstream("chat", "llm_chat", members(gpu1=[1, 2]), {"gpu1/chat-1": "timed out"})
    old = BalancerState((upstream,))
    assert drain(old, ["gpu1/chat-0"], "operator", "r", "s") == (old, ("gpu1/chat-0",))
    assert outs(after(old, "gpu1/chat-1")) == {"gpu1/chat-1"}


def test_an_announced_interruption_empties_its_upstream_alone():
    old = state(CHAT, CODE)
    new, refused = drain(old, ["gpu1/*", "gpu2/*"], "rolling-update", "r", "s", ["code"])
    assert refused == () and outs(new) == {*IDS[:3], "gpu1/code-0", "gpu2/code-0"}
    _, refused = drain(old, ["gpu1/*", "gpu2/*"], "rolling-update", "r", "s", ["chat"])
    assert set(refused) == {"gpu1/code-0", "gpu2/code-0"}


steps = st.lists(
    st.tuples(st.booleans(), st.sets(st.sampled_from([*IDS, "gpu9/x-0"])), st.sampled_from(OWNERS)),
    max_size=8,
)


@given(steps, st.dictionaries(st.sampled_from(IDS), st.just("timed out"), max_size=3))
def test_laws(actions: list[tuple[bool, set[str], Owner]], failures: dict[str, str]):
    upstream = replace(state().upstreams[0], failures=failures)
    found = BalancerState((upstream,))
    for out, replicas, owner in actions:
        others = {one for one in found.drains if one.owner != owner}
        found = after(found, *replicas, owner=owner) if out else undrain(found, replicas, owner)
        assert others == {one for one in found.drains if one.owner != owner}, "others stay"
        assert healthy(upstream, found.drains), "no drain takes the last healthy member"
        assert parse_state(dump_state(found)) == found
    for owner in OWNERS:
        found = undrain(found, IDS, owner)
    assert found.drains == ()


def test_no_state():
    assert parse_state("") is None and parse_state("\n") is None


GOOD = json.loads(dump_state(after(state(), IDS[0])))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        json.dumps(GOOD | {"schema": 2}),
        json.dumps(GOOD | {"drains": 1}),
        json.dumps(GOOD | {"max_fails": "x"}),
        json.dumps(GOOD).replace("10.0.0.1", "10.0.0.1; down"),
        json.dumps(GOOD).replace("llm_chat", "llm_chat { }"),
    ],
)
def test_what_is_no_state(text: str):
    with pytest.raises(ValueError, match=r"state.json cannot be read"):
        parse_state(text)


def test_a_deploy_keeps_drains_of_operators_and_watchdogs(tmp_path: Path):
    old = state(CHAT, CODE)
    for number, owner in enumerate(OWNERS):
        old = after(old, IDS[number], owner=owner)
    old = after(old, "gpu1/code-0")
    new = planned_state(old, [CHAT], settings(tmp_path), "run2", "later")
    assert [(one.replica, one.owner) for one in new.drains] == [
        (IDS[0], "operator"),
        (IDS[2], "watchdog"),
    ]


def test_drains_of_the_inventory_are_those_that_it_declares_now(tmp_path: Path):
    given = settings(tmp_path)
    declared = replace(CHAT, drained=frozenset([IDS[1]]))
    old = planned_state(None, [declared], given, "run", "now")
    assert old.drains == (Drain(IDS[1], "inventory", "run", "now"),)
    assert planned_state(old, [declared], given, "run2", "later") == old, "nothing is written anew"
    assert planned_state(old, [CHAT], given, "run2", "later").drains == ()


def test_a_service_of_which_none_answers_keeps_what_it_had(tmp_path: Path):
    old = state(CHAT, CODE)
    moved = replace(CHAT, members=members(gpu1=[8500]))
    new = planned_state(old, [moved, CODE], settings(tmp_path), "run", "now")
    found = with_results(
        new, old, {"gpu1/chat-0": "timed out", "gpu1/code-0": "HTTP 500"}, ["chat"]
    )
    chat, code = found.upstreams
    assert chat == old.upstreams[0]
    assert code.failures == {"gpu1/code-0": "HTTP 500"}
    # One that was not here before is written as it is planned.
    found = with_results(new, None, {"gpu1/chat-0": "timed out"}, ["chat"])
    assert found.upstreams[0].members == moved.members


def test_who_vanished():
    old = state(CHAT, route("code", member("gpu3/code-0")))
    assert removed_members(old, [CHAT]) == ("gpu3/code-0",)
    assert removed_members(old, [replace(CHAT, members=members(gpu2=[8000]))]) == (
        "gpu1/chat-0",
        "gpu1/chat-1",
        "gpu3/chat-0",
        "gpu3/code-0",
    )


def by_person(target: str, **values: Any) -> Drain:
    return Drain(target, "operator", "run", "now", reason="fans", **values)


GPUS = route(
    "chat",
    replace(member("gpu1/chat-0", 8000), gpus=(0, 1)),
    replace(member("gpu1/chat-1", 8001), gpus=(2, 3)),
    replace(member("gpu2/chat-0", 8000), gpus=(0, 1)),
)


@pytest.mark.parametrize(
    ("target", "out"),
    [
        (host_target("gpu1"), {"gpu1/chat-0", "gpu1/chat-1"}),
        (gpu_target("gpu1", 3), {"gpu1/chat-1"}),
        (gpu_target("gpu1", 4), set()),
        ("gpu2/chat-0", {"gpu2/chat-0"}),
    ],
)
def test_a_person_drains_a_host_a_replica_or_a_gpu(tmp_path: Path, target: str, out: set[str]):
    found, emptied = drained_by_person(state(GPUS), by_person(target))
    assert (outs(found), emptied) == (out, ())
    assert parse_state(dump_state(found)) == found
    assert all("operator" in drain_owners(found)[id] for id in out)
    assert drained_by_person(found, by_person(target, interruption=True)) == (found, ())
    # A balancer that is new, or did not hear of it, learns it from another one.
    for old in (None, state(GPUS)):
        new = planned_state(old, [GPUS], settings(tmp_path), "run2", "later", found.drains)
        assert outs(new) == out
    # It stays over deploys and a rolling update, until a person ends exactly it.
    later = planned_state(found, [GPUS], settings(tmp_path), "run2", "later")
    assert outs(undrain(later, list(later.ids), "rolling-update")) == out
    assert outs(with_results(later, found, {}, ())) == out
    assert undrained_by_person(later, "gpu1/chat-9") == later
    assert undrained_by_person(later, target).drains == ()


def test_a_drained_gpu_drains_whatever_is_planned_there_later(tmp_path: Path):
    found, _ = drained_by_person(state(GPUS), by_person(gpu_target("gpu1", 3)))
    moved = replace(member("gpu1/chat-7", 8007), gpus=(3,))
    for later, out in ((GPUS.members[2:], set()), ((*GPUS.members[2:], moved), {"gpu1/chat-7"})):
        found = planned_state(found, [route("chat", *later)], settings(tmp_path), "run2", "later")
        assert outs(found) == out


def test_what_would_empty_an_upstream_is_refused_unless_that_is_announced():
    one, _ = drained_by_person(state(GPUS, CODE), by_person("gpu2/*"))
    assert drained_by_person(one, by_person("gpu1/*")) == (one, ("chat", "code"))
    both, emptied = drained_by_person(one, by_person("gpu1/*", interruption=True))
    assert (outs(both), emptied) == (set(both.ids), ())
