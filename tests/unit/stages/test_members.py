"""Members and changes of a rolling update, from what hosts run and what is planned."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roles.fleet import Fleet, host_launch
from roles.launch import LaunchState
from roles.launch.state import ReplicaUnit
from roles.rolling import Member, Removal, Restart
from roles.stages.members import Balanced, Found, changes_of, members_of
from tests.unit.stages.fleet import serves
from tests.unit.stages.simulation import HOSTS, SERVICE, Simulation

Make = Callable[..., Fleet]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    def made(hosts: dict[str, dict[str, Any]] = HOSTS, **settings: Any) -> Fleet:
        return Simulation(tmp_path, monkeypatch, hosts, **settings).fleet()

    return made


def found(fleet: Fleet, fresh: bool = False, **states: LaunchState) -> dict[str, Found]:
    """What launch finds on hosts, with what it has to do there."""
    return {
        name: Found(state, tuple(host_launch(fleet, name).changes(state)), fresh)
        for name, state in states.items()
    }


def members(fleet: Fleet, known: dict[str, Found], host: str) -> dict[str, bool]:
    """Whether each replica on a host serves, by its name."""
    return {
        member.id.partition("/")[2]: member.serves
        for member in members_of(fleet, known)
        if member.hosts == (host,)
    }


def as_planned(fleet: Fleet, name: str) -> LaunchState:
    launch = host_launch(fleet, name)
    entries = {one.name: one.entry for one in launch.replicas}
    units = {
        one: ReplicaUnit("active", "enabled", entry["digest"]) for one, entry in entries.items()
    }
    return LaunchState(units, entries, launch.shared, firewall=True)


def test_hosts_that_the_run_does_not_reach_are_taken_for_good(make: Make):
    assert members_of(make(), {})[:3] == [
        Member("gpu1/s-0", "s", ("gpu1",)),
        Member("gpu1/s-1", "s", ("gpu1",)),
        Member("gpu2/s-0", "s", ("gpu2",)),
    ]
    assert changes_of(make(), {}) == []


def test_balancers_say_who_serves_on_hosts_that_the_run_does_not_reach(make: Make):
    fleet = make()
    known = found(fleet, gpu1=as_planned(fleet, "gpu1"))
    balanced = Balanced(frozenset({"gpu1/s-0", "gpu2/s-1"}))
    members = members_of(fleet, known, balanced)
    assert {one.id for one in members if one.serves} == {"gpu1/s-0", "gpu1/s-1", "gpu2/s-1"}
    # The other one of gpu1 was not let in yet: the end of this run does it.
    assert {one.id for one in members if one.gets_requests} == {"gpu1/s-0", "gpu2/s-1"}


def test_a_replica_counts_where_all_balancers_have_it():
    one = Balanced(frozenset({"a", "b"}), {"c": frozenset({"operator"})})
    other = Balanced(frozenset({"b", "c"}), {"a": frozenset({"rolling-update"})})
    both = one.with_another(other)
    assert both.in_service == {"b"}
    assert [sorted(both.keep_out(id)) for id in "abcd"] == [
        ["rolling-update"],
        [],
        ["operator"],
        ["rolling-update"],
    ]


def test_replicas_whose_only_key_changes_restart_together(make: Make):
    fleet = make(engines={"vllm": {"requirement": "vllm==0.31.0", "allow_unhashed": True}})
    states = {}
    for name in ("gpu1", "gpu2"):
        state = as_planned(fleet, name)
        units = {
            one: replace(unit, digest="0ld", key_digest="another")
            for one, unit in state.units.items()
        }
        states[name] = replace(state, units=units)
    # One that is down has no key, and must not start with the new one before the others.
    units = {one: replace(unit, active="failed") for one, unit in states["gpu1"].units.items()}
    states["gpu1"] = replace(states["gpu1"], units=units)
    known = found(fleet, **states)
    [why] = {one.together for one in changes_of(fleet, known) if isinstance(one, Restart)}
    assert why == "the key of s changes, and its engine takes only one key"


def test_the_inventory_drains_hosts_once_the_balancers_do(make: Make):
    fleet = make(HOSTS | {"gpu2": HOSTS["gpu2"] | {"drained": True}})
    # It may get requests still.
    assert {one.drained_by for one in members_of(fleet, {})} == {frozenset()}
    ids = frozenset(one.id for one in members_of(fleet, {}))
    gone = frozenset({"gpu2/s-0", "gpu2/s-1"})
    balanced = Balanced(ids - gone, dict.fromkeys(gone, frozenset({"inventory"})))
    drained = {one.hosts[0]: set(one.drained_by) for one in members_of(fleet, {}, balanced)}
    assert drained == {"gpu1": set(), "gpu2": {"inventory"}, "gpu3": set()}


def test_without_a_balancer_the_inventory_alone_says_who_is_drained(make: Make):
    hosts = {"gpu1": HOSTS["gpu1"] | {"drained": True}, "gpu2": HOSTS["gpu2"]}
    fleet = make(hosts, services=[SERVICE | {"single_endpoint": True}])
    found = {one.hosts[0]: set(one.drained_by) for one in members_of(fleet, {})}
    assert found == {"gpu1": {"inventory"}}


def test_a_host_as_planned_has_nothing_to_change(make: Make):
    fleet = make()
    known = found(fleet, gpu1=as_planned(fleet, "gpu1"))
    assert changes_of(fleet, known) == []
    assert members(fleet, known, "gpu1") == {"s-0": True, "s-1": True}


@pytest.mark.parametrize(
    ("active", "up"),
    [
        ("active", True),
        ("activating", True),
        ("reloading", True),
        ("failed", False),
        ("inactive", False),
    ],
)
def test_a_replica_serves_while_its_unit_is_up(make: Make, active: str, up: bool):
    fleet = make()
    state = as_planned(fleet, "gpu1")
    unit = replace(state.units["s-1"], active=active)
    known = found(fleet, gpu1=replace(state, units={**state.units, "s-1": unit}))
    assert members(fleet, known, "gpu1") == {"s-0": True, "s-1": up}
    assert changes_of(fleet, known) == ([] if up else [Restart("gpu1/s-1")])


def test_replicas_without_a_manifest_restart_as_what_they_are(make: Make):
    fleet = make()
    known = found(fleet, gpu1=serves(digest=None))
    assert members(fleet, known, "gpu1") == {"s-0": True, "s-1": True}
    assert changes_of(fleet, known) == [Restart("gpu1/s-0"), Restart("gpu1/s-1")]


def test_replicas_of_another_name_are_of_the_service_that_they_are_named_for(make: Make):
    fleet = make()
    units = {"my-chat-0": ReplicaUnit("active", "enabled", None)}
    known = found(fleet, gpu1=LaunchState(units))
    old = next(one for one in members_of(fleet, known) if one.id == "gpu1/my-chat-0")
    assert (old.service, old.serves) == ("my-chat", True)
    assert Removal("gpu1/my-chat-0") in changes_of(fleet, known)


def test_the_manifest_has_the_last_word_on_a_replicas_service(make: Make):
    fleet = make()
    state = serves(service="t")
    entries = {name: {**one, "service": "other"} for name, one in state.manifest.items()}
    known = found(fleet, gpu1=replace(state, manifest=entries))
    assert {one.service for one in members_of(fleet, known) if one.id.startswith("gpu1/t")} == {
        "other"
    }


def entry(name: str, port: int, *gpus: int) -> dict[str, Any]:
    return {"name": name, "port": port, "gpus": list(gpus), "digest": "0ld", "service": "t"}


@pytest.mark.parametrize(
    ("old", "replaced"),
    [
        # By a GPU, by the port, by neither; a note about one that runs no more holds nothing.
        (entry("t-0", 9001, 0), {"s-0"}),
        (entry("t-0", 9001, 0, 1), {"s-0", "s-1"}),
        (entry("t-0", 8002), {"s-1"}),
        (entry("t-0", 9001), set()),
        (entry("gone", 9001, 0), set()),
    ],
)
def test_a_replica_replaces_others_whose_gpus_or_port_it_needs(
    make: Make, old: dict[str, Any], replaced: set[str]
):
    fleet = make()
    units = {"t-0": ReplicaUnit("active", "enabled", "0ld")}
    known = found(fleet, gpu1=LaunchState(units, {old["name"]: old}))
    changes = changes_of(fleet, known)
    restarts = {one.replica: one.replaces for one in changes if isinstance(one, Restart)}
    assert restarts == {
        f"gpu1/{name}": ("gpu1/t-0",) if name in replaced else () for name in ("s-0", "s-1")
    }
    assert [one.replica for one in changes if isinstance(one, Removal)] == ["gpu1/t-0"]


def test_replicas_that_this_run_started_are_new_to_balancers_and_change_no_more(make: Make):
    fleet = make()
    known = found(fleet, fresh=True, gpu1=LaunchState())
    assert members(fleet, known, "gpu1") == {"s-0": False, "s-1": False}
    assert changes_of(fleet, known) == []


def test_all_of_a_retired_host_goes(make: Make):
    fleet = make(HOSTS | {"gpu2": {"retired": True}})
    known = found(fleet, gpu2=serves())
    assert members(fleet, known, "gpu2") == {"s-0": True, "s-1": True}
    assert changes_of(fleet, known) == [Removal("gpu2/s-0"), Removal("gpu2/s-1")]
