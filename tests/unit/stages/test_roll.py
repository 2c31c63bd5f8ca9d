"""The rolling update over simulated hosts: who restarts, who is drained, and when it stops."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra import host
from pyinfra.api.exceptions import PyinfraError

from roles.balancer import BalancerState, Drain, Member, Upstream, in_service
from roles.launch import LaunchState
from roles.launch.facts import LaunchFacts, NotServing
from roles.launch.state import ReplicaUnit
from roles.launch.transaction import RESTORED
from roles.stages.engines import engines
from roles.stages.roll import roll
from roles.stages.rolling import Rolling
from roles.stages.run import Run
from tests.unit.stages.fleet import ADDRESSES, HOSTS, NAMES, TRANSACTION, ServingFleet, serves
from tests.unit.stages.simulation import SERVICE

PORTS = {"s": 8001, "t": 8101}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServingFleet:
    return ServingFleet(tmp_path, monkeypatch)


def turns(*names: str) -> list[str]:
    return [f"{name} {what}" for name in names for what in ("drained", "restarts", "undrained")]


def fails(command: str) -> bool:
    return command.startswith(TRANSACTION)


def test_hosts_restart_one_after_the_other_while_nobody_asks_them(fleet: ServingFleet):
    assert fleet.update() == set()
    assert fleet.history == turns("gpu1", "gpu2", "gpu3")
    assert fleet.balancer.drains == ()
    assert [task["steps"] for _, task in fleet.tasks] == [[list(NAMES)]] * 3


def test_a_host_at_work_for_another_deploy_is_waited_for_by_what_depends_on_it(
    fleet: ServingFleet,
):
    def stage(run: Run) -> None:
        if host.name == "gpu1":
            run.busy.add("gpu1")
            host.state.fail_hosts({run.state.inventory.get_host("gpu1")})
            return
        engines(run)
        roll(run)

    fleet.run = fleet.begin()
    failed = fleet.execute(fleet.run, stage)
    assert fleet.history == [] and fleet.tasks == []
    assert failed == {"gpu1", "gpu2", "gpu3"}
    for name in ("gpu2", "gpu3"):
        refused = fleet.run.rolling.refused_on(name)
        assert len(refused) == len(NAMES)
        assert all("gpu1" in one and one.endswith("wait for it, then run again") for one in refused)


def test_only_hosts_that_must_restart_are_drained(fleet: ServingFleet):
    fleet.planned("gpu1", "gpu3")
    assert fleet.update() == set()
    assert fleet.history == turns("gpu2")


def test_only_replicas_that_must_restart_are_drained(fleet: ServingFleet):
    fleet.planned(*ADDRESSES)
    old = fleet.states["gpu2"]
    fleet.states["gpu2"] = replace(
        old, units={**old.units, "s-1": ReplicaUnit("active", "enabled", "0ld")}
    )
    drained: list[set[str]] = []
    fleet.machines["lb1"].done = lambda command, stdin: (
        fleet.installed(stdin),
        drained.append({drain.replica for drain in fleet.balancer.drains}),
    )
    assert fleet.update() == set()
    assert drained == [{"gpu2/s-1"}, set()]
    assert [(name, task["steps"]) for name, task in fleet.tasks] == [("gpu2", [["s-1"]])]


def test_an_only_key_changes_on_all_hosts_at_once_until_balancers_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    fleet = ServingFleet(
        tmp_path,
        monkeypatch,
        engines={"vllm": {"requirement": "vllm==0.31.0", "allow_unhashed": True}},
    )
    for name, state in fleet.states.items():
        units = {one: replace(unit, key_digest="another") for one, unit in state.units.items()}
        fleet.states[name] = replace(state, units=units)
    assert fleet.update() == set()
    everyone = {f"{host}/{replica}" for host in ADDRESSES for replica in NAMES}
    # The balancers' last stage, which writes the new key, ends these drains.
    assert {drain.replica for drain in fleet.balancer.drains} == everyone
    assert sorted(name for name, _ in fleet.tasks) == list(ADDRESSES)
    assert fleet.run.rolling.plan().interruptions[0].service == "s"
    assert "its engine takes only one key" in capsys.readouterr().err


def test_a_service_that_must_not_be_interrupted_keeps_its_only_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    services = [SERVICE | {"interruptible": False}]
    engines = {"vllm": {"requirement": "vllm==0.31.0", "allow_unhashed": True}}
    fleet = ServingFleet(tmp_path, monkeypatch, services=services, engines=engines)
    for name, state in fleet.states.items():
        units = {one: replace(unit, key_digest="another") for one, unit in state.units.items()}
        fleet.states[name] = replace(state, units=units)
    fleet.update()
    assert (fleet.history, fleet.tasks) == ([], [])
    assert "its engine takes only one key" in fleet.run.rolling.refused_on("gpu1")[0]


def test_a_host_that_fails_stops_the_update_and_the_others_serve_on(fleet: ServingFleet):
    fleet.machines["gpu2"].fails = fails
    assert fleet.update() == {"gpu2"}
    # It is not known what serves on gpu2: it gets no requests until a deploy asks it.
    assert fleet.history == [*turns("gpu1"), "gpu2 drained"]
    assert {drain.owner for drain in fleet.balancer.drains} == {"rolling-update"}
    left = fleet.run.rolling.skipped_on("gpu3")
    assert len(left) == 2 and all("gpu2 failed" in reason for reason in left)
    assert fleet.run.rolling.skipped_on("gpu1") == ()


def test_a_host_of_which_nobody_knows_what_it_runs_does_not_move(fleet: ServingFleet):
    def found() -> LaunchState:
        if "gpu2 drained" not in fleet.history:
            return fleet.found("gpu2")
        # The host's answer is cut short: pyinfra fails it, and goes on with the default.
        (this_host,) = (host for host in fleet.run.state.inventory if host.name == "gpu2")
        this_host.state.fail_hosts({this_host})
        return LaunchState()

    fleet.machines["gpu2"].facts[LaunchFacts] = found
    assert fleet.update() == {"gpu2"}
    assert fleet.history == [*turns("gpu1"), "gpu2 drained"]


@pytest.mark.parametrize("where", ["gpu1", "gpu2"])
def test_a_service_that_is_put_back_leaves_the_others_update_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    services = [
        SERVICE | {"name": name, "first_port": port, "route": {"path_prefix": f"/{name}"}}
        for name, port in PORTS.items()
    ]
    fleet = ServingFleet(tmp_path, monkeypatch, HOSTS, services=services)
    fleet.serves_both()
    fleet.machines[where].fails = fails
    fleet.machines[where].last_words = [f"{RESTORED}s-0"]
    assert fleet.update() == {where}
    later = [name for name in ADDRESSES if name > where]
    after = [(name, task["steps"]) for name, task in fleet.tasks if name in later]
    assert after == [(name, [["t-0"]]) for name in later]
    # All replicas of the host that failed serve as before, and get requests at once.
    assert fleet.balancer.drains == ()
    assert all("s-0" in left for name in later for left in fleet.run.rolling.skipped_on(name))


def test_a_service_that_left_is_drained_before_it_is_taken_down(fleet: ServingFleet):
    fleet.planned(*ADDRESSES)
    drained: list[set[str]] = []
    old = ReplicaUnit("active", "enabled", "0ld")
    members = tuple(
        Member(f"{name}/t-0", name, address, 8101) for name, address in ADDRESSES.items()
    )
    fleet.balancer = replace(
        fleet.balancer, upstreams=(*fleet.balancer.upstreams, Upstream("t", "llm-t", members))
    )
    for name, state in fleet.states.items():
        fleet.states[name] = replace(state, units={**state.units, "t-0": old})
    happened = fleet.changed

    def changed(name: str, command: str, stdin: str) -> None:
        drained.append({drain.replica for drain in fleet.balancer.drains})
        happened(name, command, stdin)

    for name in ADDRESSES:
        fleet.machines[name].done = lambda command, stdin, name=name: changed(name, command, stdin)
    assert fleet.update() == set()
    assert [(name, task["retire"]) for name, task in fleet.tasks] == [
        (name, ["t-0"]) for name in ADDRESSES
    ]
    ids = [f"{name}/t-0" for name in ADDRESSES]
    assert drained == [set(ids[: number + 1]) for number in range(3)]


def test_a_host_that_was_left_alone_is_not_asked_whether_it_serves_as_planned(fleet: ServingFleet):
    fleet.machines["gpu2"].fails = fails
    fleet.update()
    assert NotServing in fleet.machines["gpu1"].asked
    assert NotServing not in fleet.machines["gpu3"].asked


def test_a_replica_that_does_not_serve_in_the_end_fails_its_host(fleet: ServingFleet):
    fleet.machines["gpu3"].facts[NotServing] = "s-1 does not serve"
    assert fleet.update() == {"gpu3"}
    assert fleet.run.report.reasons["gpu3"] == "s-1 does not serve"


def test_no_host_restarts_where_the_balancer_fails(fleet: ServingFleet):
    fleet.machines["lb1"].fails = lambda command: True
    assert fleet.update() == {"lb1"}
    assert fleet.history == []


def test_hosts_outside_the_limit_are_left_alone(fleet: ServingFleet):
    assert fleet.update("gpu3", "lb1") == set()
    assert fleet.history == turns("gpu3")


def test_nobody_restarts_where_the_limit_leaves_the_balancer_out(fleet: ServingFleet):
    with pytest.raises(PyinfraError, match="No hosts remaining"):
        fleet.update("gpu1")
    assert fleet.history == []
    assert "add --limit lb1" in fleet.run.report.reasons["gpu1"]


def test_hosts_outside_the_limit_that_the_balancer_does_not_ask_serve_nobody(fleet: ServingFleet):
    members = tuple(m for m in fleet.balancer.upstreams[0].members if m.host != "gpu3")
    failures = {f"gpu2/{name}": "refused" for name in NAMES}
    fleet.balancer = BalancerState((Upstream("s", "llm-s", members, failures),))
    assert fleet.update("gpu1", "lb1") == set()
    # Nobody else would be left to serve.
    assert [task["steps"] for _, task in fleet.tasks] == [[["s-0"]], [["s-1"]]]


def test_a_killed_run_goes_on_where_it_was(fleet: ServingFleet):
    class Killed(BaseException):
        pass

    def killed(command: str) -> bool:
        if fails(command):
            raise Killed
        return False

    fleet.machines["gpu2"].fails = killed
    with pytest.raises(Killed):
        fleet.update()
    assert fleet.history == [*turns("gpu1"), "gpu2 drained"]
    fleet.machines["gpu2"].fails = lambda command: False
    assert fleet.update() == set()
    # The next run takes back what the killed one drained.
    assert fleet.history == ["gpu2 restarts", "gpu2 undrained", *turns("gpu3")]
    assert fleet.balancer.drains == ()


def two_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> ServingFleet:
    """gpu1 and gpu2 behind a balancer; gpu3 is retired and empty."""
    hosts = HOSTS | {"gpu3": HOSTS["gpu3"] | {"retired": True}}
    fleet = ServingFleet(tmp_path, monkeypatch, hosts, **settings)
    fleet.states["gpu3"] = LaunchState()
    (upstream,) = fleet.balancer.upstreams
    members = tuple(one for one in upstream.members if one.host != "gpu3")
    fleet.balancer = BalancerState((replace(upstream, members=members),))
    return fleet


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServingFleet:
    return two_hosts(tmp_path, monkeypatch)


def served(fleet: ServingFleet) -> list[set[str]]:
    """Follow the update: the ids in service whenever a host begins to restart."""
    found: list[set[str]] = []
    for name in ADDRESSES:
        happened = fleet.machines[name].done

        def done(command: str, stdin: str, happened: Any = happened) -> None:
            if command.startswith(TRANSACTION):
                found.append(set(in_service(fleet.balancer)))
            happened(command, stdin)

        fleet.machines[name].done = done
    return found


def test_what_a_killed_run_moved_gets_requests_before_the_others_move(pair: ServingFleet):
    pair.planned("gpu1")
    drains = tuple(Drain(f"gpu1/{name}", "rolling-update", "old", "s") for name in NAMES)
    pair.balancer = replace(pair.balancer, drains=drains)
    seen = served(pair)
    assert pair.update() == set()
    assert seen == [{"gpu1/s-0", "gpu1/s-1"}]
    assert pair.run.rolling.plan().interruptions == ()


def test_who_failed_before_and_is_proved_gets_requests_before_the_others_move(pair: ServingFleet):
    (upstream,) = pair.balancer.upstreams
    failures = dict.fromkeys(("gpu1/s-0", "gpu1/s-1"), "no answer")
    pair.balancer = BalancerState((replace(upstream, failures=failures),))
    seen = served(pair)
    assert pair.update() == set()
    assert seen == [{"gpu2/s-0", "gpu2/s-1"}, {"gpu1/s-0", "gpu1/s-1"}]


def test_a_replica_gets_requests_at_its_new_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fleet = two_hosts(tmp_path, monkeypatch, services=[SERVICE | {"first_port": 8101}])
    assert fleet.update() == set()
    (upstream,) = fleet.balancer.upstreams
    assert {member.port for member in upstream.members} == {8101, 8102}
    assert fleet.history == turns("gpu1", "gpu2")


def test_what_the_inventory_drains_is_drained_before_it_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hosts = HOSTS | {"gpu2": HOSTS["gpu2"] | {"drained": True}}
    fleet = ServingFleet(tmp_path, monkeypatch, hosts)
    fleet.planned("gpu1", "gpu3")
    seen = served(fleet)
    assert fleet.update() == set()
    assert not {"gpu2/s-0", "gpu2/s-1"} & seen[0]
    # Nobody can say that its drain was written yet: it is left where no balancer is in the run.
    fleet.states["gpu2"] = serves()
    with pytest.raises(PyinfraError, match="No hosts remaining"):
        fleet.update("gpu2")
    assert fleet.tasks == []


def test_a_host_whose_drain_a_balancer_refuses_is_left_as_it_is(
    pair: ServingFleet, monkeypatch: pytest.MonkeyPatch
):
    pair.planned("gpu1")
    (upstream,) = pair.balancer.upstreams
    failing = dict.fromkeys(("gpu1/s-0", "gpu1/s-1"), "no answer")

    def fail_after_the_plan(command: str, stdin: str) -> None:
        pair.installed(stdin)

    # gpu1 fails after the plan was made, as a passive check would find.
    plan = Rolling.plan

    def planned(rolling: Rolling):
        found = plan(rolling)
        pair.balancer = BalancerState((replace(upstream, failures=failing),))
        return found

    monkeypatch.setattr(Rolling, "plan", planned)
    pair.machines["lb1"].done = fail_after_the_plan
    pair.update()
    assert pair.tasks == []
    assert "balancers have nothing else" in pair.run.rolling.skipped_on("gpu2")[0]


def test_nothing_happens_where_nothing_changed(fleet: ServingFleet):
    fleet.planned(*ADDRESSES)
    assert fleet.update() == set()
    assert fleet.history == []


def test_hosts_where_nothing_served_are_started_once_and_drained_by_nobody(fleet: ServingFleet):
    fleet.states["gpu2"] = LaunchState()
    assert fleet.update() == set()
    assert [name for name, _ in fleet.tasks] == ["gpu2", "gpu1", "gpu3"]
    assert fleet.history == ["gpu2 restarts", *turns("gpu1", "gpu3")]


def test_hosts_share_at_most_so_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fleet = ServingFleet(tmp_path, monkeypatch, HOSTS, launch={"roll_batches": 2})
    assert fleet.update() == set()
    assert fleet.history[:2] == ["gpu1 drained", "gpu2 drained"]
    assert fleet.history[-3:] == turns("gpu3")


def test_a_retired_host_is_drained_and_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fleet = ServingFleet(tmp_path, monkeypatch, HOSTS | {"gpu2": {"retired": True}})
    fleet.planned("gpu1", "gpu3")
    assert fleet.update() == set()
    # It stays drained: nothing is left there that could answer.
    assert fleet.history == ["gpu2 drained", "gpu2 emptied"]
    assert fleet.run.launch("gpu2").replicas == ()
    assert fleet.states["gpu2"].units == {}


def test_a_renamed_service_takes_the_place_of_the_old_one(fleet: ServingFleet):
    fleet.planned("gpu1", "gpu3")
    fleet.states["gpu2"] = serves(service="t")
    assert fleet.update() == set()
    ((name, task),) = fleet.tasks
    assert (name, task["steps"], sorted(task["retire"])) == ("gpu2", [list(NAMES)], ["t-0", "t-1"])


def test_runs_do_not_share_what_happened(fleet: ServingFleet):
    fleet.update()
    first = fleet.run
    fleet.update()
    assert isinstance(first, Run) and fleet.run is not first
    assert fleet.run.rolling is not first.rolling
