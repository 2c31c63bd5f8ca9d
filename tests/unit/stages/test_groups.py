"""A replica over several hosts moves, fails, is drained and is left out as one."""

from pathlib import Path
from typing import Any

import pytest

from roles.balancer import BalancerState, Upstream, covered, gpu_target, host_target
from roles.fleet import host_launch, members_by_service, routes
from roles.launch import LaunchState
from roles.launch.state import ReplicaUnit
from roles.launch.transaction import RESTORED
from roles.stages.members import Found, changes_of, members_of
from roles.stages.watchdog import host_watch
from roles.watchdog import Quarantine
from tests.unit.stages.fleet import ServingFleet
from tests.unit.stages.simulation import HOSTS, SERVICE

GROUP = SERVICE | {"members": [{"hosts": ["gpu1", "gpu2"], "tensor_parallel_size": 4}]}
ID = "gpu1/s-0"


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServingFleet:
    return ServingFleet(tmp_path, monkeypatch, HOSTS, services=[GROUP])


def as_planned(fleet: ServingFleet, name: str, active: str = "active") -> LaunchState:
    entries = {one.name: one.entry for one in host_launch(fleet.fleet(), name).replicas}
    units = {one: ReplicaUnit(active, "enabled", e["digest"]) for one, e in entries.items()}
    return LaunchState(units, entries, host_launch(fleet.fleet(), name).shared, firewall=True)


def found(fleet: ServingFleet, **states: LaunchState) -> dict[str, Found]:
    return {
        name: Found(state, tuple(host_launch(fleet.fleet(), name).changes(state)))
        for name, state in states.items()
    }


def test_it_is_one_member_that_serves_where_all_its_parts_do(fleet: ServingFleet):
    good = {name: as_planned(fleet, name) for name in ("gpu1", "gpu2")}
    (one,) = [m for m in members_of(fleet.fleet(), found(fleet, **good)) if m.id == ID]
    assert (one.hosts, one.serves) == (("gpu1", "gpu2"), True)
    broken = good | {"gpu2": as_planned(fleet, "gpu2", "failed")}
    known = members_of(fleet.fleet(), found(fleet, **broken))
    assert [m.serves for m in known if "gpu2" in m.hosts] == [False]


def test_whichever_part_has_to_move_the_replica_does(fleet: ServingFleet):
    broken = as_planned(fleet, "gpu2", "failed")
    known = found(fleet, gpu1=as_planned(fleet, "gpu1"), gpu2=broken)
    assert [(type(one).__name__, one.replica) for one in changes_of(fleet.fleet(), known)] == [  # type: ignore[union-attr]
        ("Restart", ID)
    ]


def moved(fleet: ServingFleet) -> dict[str, list[list[str]]]:
    return {name: task["steps"] for name, task in fleet.tasks if task["steps"]}


def test_replicas_of_one_host_become_one_over_both(fleet: ServingFleet):
    assert fleet.update() == set()
    both = moved(fleet)
    assert both["gpu1"] == both["gpu2"] == [["s-0"]]
    # Nothing between the two: they start together.
    places = [number for number, (name, task) in enumerate(fleet.tasks) if task["steps"]]
    names = [fleet.tasks[number][0] for number in places]
    assert abs(names.index("gpu1") - names.index("gpu2")) == 1
    for name in ("gpu1", "gpu2"):
        assert list(fleet.states[name].units) == ["s-0"], name
    assert fleet.states["gpu2"].manifest["s-0"]["rank"] == 1
    before = len(fleet.tasks)
    assert fleet.update() == set() and before and fleet.tasks == []


def test_it_starts_on_fresh_hosts_with_all_of_them(fleet: ServingFleet):
    fleet.states |= {name: LaunchState() for name in ("gpu1", "gpu2")}
    fleet.balancer = BalancerState((Upstream("s", "llm-s", ()),))
    assert fleet.update() == set()
    assert moved(fleet)["gpu1"] == moved(fleet)["gpu2"] == [["s-0"]]


def test_a_run_without_one_of_its_hosts_leaves_it_as_it_is(fleet: ServingFleet):
    assert fleet.update("gpu1", "lb1") == {"gpu1"}
    assert "gpu1" not in moved(fleet)
    assert "--limit gpu2" in "".join(fleet.run.rolling.skipped_on("gpu1"))


def test_its_failure_is_one(fleet: ServingFleet):
    fleet.machines["gpu2"].fails = lambda command: command.startswith("python3 -")
    failed = fleet.update()
    assert failed == {"gpu2"}
    # The head's part was moved, and nobody knows that the whole serves.
    assert ID not in fleet.run.rolling.moved
    assert ID in {drain.replica for drain in fleet.balancer.drains}


@pytest.mark.parametrize("put_back", [("gpu1",), ("gpu1", "gpu2")])
def test_it_gets_requests_again_where_all_its_hosts_put_it_back(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fleet: ServingFleet,
    put_back: tuple[str, ...],
):
    assert fleet.update() == set()
    other = later(fleet, tmp_path, monkeypatch, HOSTS, GROUP | {"max_model_len": 2048})
    for name in ("gpu1", "gpu2"):
        other.machines[name].fails = lambda command: command.startswith("python3 -")
    for name in put_back:
        other.machines[name].last_words = [f"{RESTORED}s-0"]
    assert other.update() == {"gpu1", "gpu2"}
    drained = {drain.replica for drain in other.balancer.drains}
    assert (ID in drained) is (len(put_back) == 1)


def test_one_that_leaves_the_plan_is_taken_down_on_all_its_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleet: ServingFleet
):
    assert fleet.update() == set()
    other = ServingFleet(tmp_path, monkeypatch, HOSTS, services=[SERVICE | {"name": "t"}])
    other.states, other.balancer = fleet.states, fleet.balancer
    assert other.update() == set()
    for name in ("gpu1", "gpu2"):
        assert sorted(other.states[name].units) == ["t-0", "t-1"], name


def test_it_becomes_replicas_of_one_host_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleet: ServingFleet
):
    assert fleet.update() == set()
    other = ServingFleet(tmp_path, monkeypatch, HOSTS, services=[SERVICE])
    other.states, other.balancer = fleet.states, fleet.balancer
    assert other.update() == set()
    for name in ("gpu1", "gpu2"):
        assert sorted(other.states[name].units) == ["s-0", "s-1"], name
        assert "rank" not in other.states[name].manifest["s-0"]


def later(
    fleet: ServingFleet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hosts: dict[str, Any],
    *services: dict[str, Any],
) -> ServingFleet:
    """The same hosts with another inventory."""
    other = ServingFleet(tmp_path, monkeypatch, hosts, services=list(services))
    other.states, other.balancer = fleet.states, fleet.balancer
    return other


def without(name: str) -> dict[str, Any]:
    # Each host keeps its address.
    address = {one: f"10.0.0.{number}" for number, one in enumerate(HOSTS, 1)}
    return {one: own | {"address": address[one]} for one, own in HOSTS.items() if one != name}


def test_a_part_whose_head_left_the_inventory_is_taken_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleet: ServingFleet
):
    assert fleet.update() == set()
    other = later(fleet, tmp_path, monkeypatch, without("gpu1"), SERVICE | {"name": "t"})
    assert other.update() == set()
    assert sorted(other.states["gpu2"].units) == ["t-0", "t-1"]
    assert other.update() == set() and other.tasks == []


@pytest.mark.parametrize("gone", ["gpu1", "gpu2"])
def test_hosts_of_one_that_left_the_inventory_serve_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleet: ServingFleet, gone: str
):
    assert fleet.update() == set()
    (stays,) = {"gpu1", "gpu2"} - {gone}
    other = later(fleet, tmp_path, monkeypatch, without(gone), SERVICE)
    assert other.update() == set()
    assert sorted(other.states[stays].units) == ["s-0", "s-1"]
    assert "rank" not in other.states[stays].manifest["s-0"]


MOVED = SERVICE | {"members": [{"hosts": ["gpu1", "gpu3"], "tensor_parallel_size": 4}]}


def test_a_host_that_left_the_inventory_blocks_no_other_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleet: ServingFleet
):
    assert fleet.update() == set()
    other = later(fleet, tmp_path, monkeypatch, without("gpu2"), MOVED)
    assert other.update() == set()
    for name in ("gpu1", "gpu3"):
        assert list(other.states[name].units) == ["s-0"], name
        assert other.states[name].manifest["s-0"]["hosts"] == ["gpu1", "gpu3"], name
    assert ID not in {drain.replica for drain in other.balancer.drains}


def unreachable(fleet: ServingFleet, name: str) -> None:
    """The host answers nothing in the next run."""
    begin = fleet.begin

    def begun(*arguments: Any, **more: Any):
        run = begin(*arguments, **more)
        run.state.fail_hosts({run.state.inventory.get_host(name)})
        return run

    fleet.begin = begun


@pytest.mark.parametrize(
    ("dead", "members"), [("gpu2", ["gpu1", "gpu3"]), ("gpu1", ["gpu2", "gpu3"])]
)
def test_a_dead_host_that_it_leaves_blocks_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fleet: ServingFleet,
    dead: str,
    members: list[str],
):
    assert fleet.update() == set()
    # Retired, it is planned for nothing else.
    hosts: dict[str, Any] = HOSTS | {dead: HOSTS[dead] | {"retired": True}}
    service = SERVICE | {"members": [{"hosts": members, "tensor_parallel_size": 4}]}
    other = later(fleet, tmp_path, monkeypatch, hosts, service)
    unreachable(other, dead)
    assert other.update() == {dead}
    for name in members:
        assert list(other.states[name].units) == ["s-0"], name
        assert other.states[name].manifest["s-0"]["hosts"] == members, name
    assert f"{members[0]}/s-0" not in {drain.replica for drain in other.balancer.drains}
    # It comes back: its old part is taken down, and the group goes on.
    back = later(other, tmp_path, monkeypatch, hosts, service)
    assert back.update() == set()
    assert [name for name, _ in back.tasks] == [dead]
    assert back.states[dead].units == {}


def test_a_dead_host_of_the_planned_group_blocks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleet: ServingFleet
):
    assert fleet.update() == set()
    other = later(fleet, tmp_path, monkeypatch, HOSTS, MOVED)
    unreachable(other, "gpu3")
    assert "gpu3" in other.update()
    assert other.states["gpu1"].manifest["s-0"]["hosts"] == ["gpu1", "gpu2"]


def test_a_head_outside_the_run_is_not_left_without_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleet: ServingFleet
):
    """It may serve: whoever answers for the group has to be in the run."""
    assert fleet.update() == set()
    service = SERVICE | {"members": [{"hosts": ["gpu2", "gpu3"], "tensor_parallel_size": 4}]}
    other = later(fleet, tmp_path, monkeypatch, HOSTS, service)
    assert {"gpu2", "gpu3"} <= other.update("gpu2", "gpu3", "lb1")
    assert "--limit gpu1" in "".join(other.run.rolling.skipped_on("gpu2"))
    assert other.states["gpu2"].manifest["s-0"]["hosts"] == ["gpu1", "gpu2"]


def test_a_failure_of_a_host_that_it_leaves_is_that_hosts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleet: ServingFleet
):
    assert fleet.update() == set()
    hosts: dict[str, Any] = HOSTS | {"gpu2": HOSTS["gpu2"] | {"retired": True}}
    other = later(fleet, tmp_path, monkeypatch, hosts, MOVED)
    other.machines["gpu2"].fails = lambda command: command.startswith("python3 -")
    assert other.update() == {"gpu2"}
    assert other.states["gpu1"].manifest["s-0"]["hosts"] == ["gpu1", "gpu3"]
    assert ID in other.run.rolling.moved
    assert ID not in {drain.replica for drain in other.balancer.drains}


def test_a_quarantine_of_any_part_leaves_it_out_on_all_its_hosts(fleet: ServingFleet):
    run = fleet.begin()
    run.quarantines["gpu2"] = (Quarantine("x-9", "its GPU is lost", indexes=(1,)),)
    assert {name: list(run.left_out(name)) for name in ("gpu1", "gpu2", "gpu3")} == {
        "gpu1": ["s-0"],
        "gpu2": ["s-0"],
        "gpu3": [],
    }


def test_a_run_without_a_host_of_a_group_that_does_not_run_leaves_it_out(fleet: ServingFleet):
    """It may be quarantined there: the run knows nothing of that host."""
    assert fleet.update() == set()
    fleet.states["gpu1"] = as_planned(fleet, "gpu1", "inactive")
    assert fleet.update("gpu1", "lb1") == set()
    assert fleet.tasks == []
    assert fleet.run.unjoined("gpu1").keys() == {"s-0"}
    assert "--limit gpu2" in fleet.run.unjoined("gpu1")["s-0"]
    # With all of its hosts it starts.
    assert fleet.update() == set()
    assert moved(fleet).keys() == {"gpu1", "gpu2"}


def test_balancers_know_its_head_and_every_drain_of_it(fleet: ServingFleet):
    members = members_by_service(fleet.fleet())["s"]
    (one,) = [member for member in members if member.id == ID]
    assert (one.address, one.port) == ("10.0.0.1", 8001)
    for target in (host_target("gpu2"), host_target("gpu1"), gpu_target("gpu2", 1), ID):
        assert [member.id for member in covered(members, [target])] == [ID], target
    assert [m.id for m in covered(members, [host_target("gpu3")])] == ["gpu3/s-0", "gpu3/s-1"]


def test_a_host_that_the_inventory_drains_drains_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hosts: dict[str, Any] = HOSTS | {"gpu2": HOSTS["gpu2"] | {"drained": True}}
    fleet = ServingFleet(tmp_path, monkeypatch, hosts, services=[GROUP]).fleet()
    (route,) = routes(fleet)
    assert route.drained == {ID}


def test_its_heads_watchdog_watches_it_alone(fleet: ServingFleet):
    plan = fleet.fleet()
    watches = {name: host_watch(plan, plan.host(name), {}) for name in ("gpu1", "gpu2", "gpu3")}
    assert [list(one.services) for one in watches.values()] == [["s"], [], ["s"]]
    assert [peer.host for peer in watches["gpu3"].peers] == ["gpu1"]
