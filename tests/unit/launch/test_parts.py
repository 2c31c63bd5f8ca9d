"""The files of a replica over several hosts: each host's part, and who reaches which port."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
import yaml

from roles.engine import Build, SglangSettings, VllmSettings, deployment
from roles.fleet.launching import served
from roles.hardware import declared_hardware
from roles.launch import Assignment, HostLaunch, LaunchSettings, LaunchState, Member
from roles.launch.host_launch import task
from roles.launch.render import ReplicaFiles, alike, start_of
from roles.topology import ServiceSettings, plan_fleet

KEY = "engine-key-0123456789"
ADDRESSES = {"a": "10.0.0.1", "b": "10.0.0.2"}
MEMBERS = tuple(Member(host, address) for host, address in ADDRESSES.items())


def launch(
    host: str,
    build: Build | None = None,
    key: str = KEY,
    indexes: dict[str, tuple[int, ...]] | None = None,
    **more: Any,
) -> HostLaunch:
    own = build or VllmSettings()
    data = {"name": "s", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
    members = [{"hosts": ["a", "b"], "tensor_parallel_size": 4}]
    service = ServiceSettings.model_validate(data | {"engine": own.kind, "members": members} | more)
    hardware = dict.fromkeys(ADDRESSES, declared_hardware("2x NVIDIA L40S"))
    for name, given in (indexes or {}).items():
        gpus = zip(hardware[name].gpus, given, strict=True)
        hardware[name] = replace(
            hardware[name], gpus=tuple(replace(gpu, index=index) for gpu, index in gpus)
        )
    plan = plan_fleet(service, hardware).on(host)
    assert plan is not None
    (replica,) = plan.placed
    assignment = Assignment(
        *(replica, own.kind, deployment(own), own, served(service), key),
        host=host,
        members=MEMBERS,
    )
    return HostLaunch((assignment,), LaunchSettings(), ADDRESSES[host], ("10.0.0.9",))


def files(host: str, **more: Any) -> ReplicaFiles:
    return launch(host, **more).replicas[0]


def options(one: ReplicaFiles) -> dict[str, Any]:
    return yaml.safe_load(one.files["options.yaml"].text)


def test_each_part_of_vllm_knows_its_rank_and_the_head():
    head, follower = options(files("a")), options(files("b"))
    for rank, own in enumerate((head, follower)):
        assert (own["nnodes"], own["node-rank"]) == (2, rank)
        assert (own["master-addr"], own["master-port"]) == ("10.0.0.1", 29050)
        assert (own["tensor-parallel-size"], own["pipeline-parallel-size"]) == (4, 1)
    assert follower["headless"] is True and "headless" not in head
    different = {name for name in head | follower if head.get(name) != follower.get(name)}
    assert different == {"node-rank", "headless"}


def test_sglang_meets_at_the_heads_address():
    own = options(files("b", build=SglangSettings()))
    assert (own["nnodes"], own["node-rank"], own["dist-init-addr"]) == (2, 1, "10.0.0.1:29050")
    assert own["tp-size"] == 4


def test_ray_runs_a_node_on_each_host_and_the_engine_on_the_head():
    head, follower = (files(host, executor="ray") for host in "ab")
    assert options(head)["distributed-executor-backend"] == "ray"
    assert "nnodes" not in options(head)
    start, joined = head.files["engine"].text, follower.files["engine"].text
    assert "ray start --head --port=29050 " in start and "exec" in start.split("&&")[-1]
    assert "vllm serve" in start and "vllm serve" not in joined
    assert "ray start --address=10.0.0.1:29050 " in joined and joined.rstrip().endswith("--block")
    assert "--num-gpus=2" in joined
    assert 'RAY_ADDRESS="10.0.0.1:29050"' in head.files["environment"].text
    # All its ports are the group's, which the firewall closes to others.
    ports = [int(word.partition("=")[2]) for word in joined.split() if "-port=" in word]
    assert len(ports) == 8 and all(29000 <= port < 29100 for port in ports)


def test_each_node_of_ray_has_ports_of_its_own_host():
    gpus = {"a": (4, 5), "b": (0, 1)}
    joined = files("b", executor="ray", indexes=gpus).files["engine"].text
    assert "--address=10.0.0.1:29450 " in joined
    ports = [int(word.partition("=")[2]) for word in joined.split() if "-port=" in word]
    # The firewall closes 29000-29199 to others there, by the GPUs of the host.
    assert len(ports) == 8 and all(29000 <= port < 29100 for port in ports)


@pytest.mark.parametrize("build", [VllmSettings(), SglangSettings()], ids=["vllm", "sglang"])
def test_parts_with_other_settings_do_not_start_together(build: Build):
    assert together(build) != together(build, gpu_memory_utilization=0.8)


def together(build: Build, **more: Any) -> str:
    """What the parts of a replica compare before they start."""
    mine, its = (
        json.loads(files(host, build=build, **more).files["part.json"].text)["settings"]
        for host in "ab"
    )
    assert mine == its
    return mine


def test_parts_start_together_by_the_same_environment_but_for_what_is_a_hosts_own():
    def own(**environment: str) -> str:
        return together(VllmSettings(environment=environment))

    assert own() != own(NCCL_ALGO="Ring")
    assert own() == own(NCCL_SOCKET_IFNAME="eth3", NCCL_IB_HCA="mlx5_0")


def test_parts_compare_what_no_host_has_of_its_own():
    replica = launch("a", indexes={"a": (4, 5)}).assignments[0]
    its = launch("b", indexes={"a": (4, 5)}).assignments[0]
    its = replace(its, devices={0: "MIG-1", 1: "MIG-2"}, card="nvidia-l40s")
    assert alike(replica, LaunchSettings()) == alike(its, LaunchSettings())


def test_what_parts_say_before_they_know_each_other_tells_nothing_of_the_key():
    assert together(VllmSettings(), key="one") == together(VllmSettings(), key="another")
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    assert digest not in files("a").files["part.json"].text


def test_the_groups_secret_is_not_shown():
    own = launch("a")
    secret = files("a").files["part.secret"].text.strip()
    start = start_of(own.assignments[0], own.settings, own.address)
    assert secret in start.files["part.secret"] and secret not in repr(start)


@pytest.mark.parametrize("build", [VllmSettings(), SglangSettings()], ids=["vllm", "sglang"])
def test_a_part_starts_by_the_program_that_meets_the_others(build: Build):
    head, follower = files("a", build=build), files("b", build=build)
    assert head.files["start"].text.splitlines()[-1] == "exec /usr/bin/python3 -I part.py"
    mine, its = (json.loads(one.files["part.json"].text) for one in (head, follower))
    assert (mine["rank"], its["rank"], mine["port"]) == (0, 1, 29099)
    assert mine["settings"] == its["settings"]
    assert mine["addresses"] == its["addresses"] == ["10.0.0.1", "10.0.0.2"]
    # The host sets them to its own, as they differ from host to host.
    assert "SOCKET_IFNAME" not in head.files["environment"].text
    assert "HOST_IP=" not in head.files["environment"].text
    # A name alone is a prefix to NCCL, and eth1 would take eth10, too.
    assert mine["interface_variables"] == {
        "GLOO_SOCKET_IFNAME": "{}",
        "NCCL_SOCKET_IFNAME": "={}",
    }
    assert "KillMode=mixed" in head.files["unit.conf"].text.splitlines()[-2:]
    assert "NotifyAccess=main" in head.files["unit.conf"].text


def test_the_groups_secret_is_no_key_and_only_the_process_reads_it():
    head, follower = files("a"), files("b")
    secret = head.files["part.secret"]
    assert secret == follower.files["part.secret"] and secret.mode == "600"
    assert len(secret.text.strip()) == 64 and KEY not in secret.text
    assert "LoadCredential=part.secret:" in head.files["unit.conf"].text
    assert files("a", key="another-key").files["part.secret"] != secret
    assert secret.text.strip() not in json.dumps(head.entry)


def test_the_manifest_says_who_answers():
    head, follower = files("a").entry, files("b").entry
    assert (head["rank"], head.get("head"), head["port"]) == (0, None, 8001)
    assert (follower["rank"], follower["head"], follower["port"]) == (1, "10.0.0.1", 8001)
    assert head["group"] == follower["group"] == "s-0.a"
    assert head["members"] == follower["members"] == {"a": [0, 1], "b": [0, 1]}
    sent = task(launch("b"), LaunchState(), [["s-0"]], [], "run")
    assert sent["replicas"][0]["head"] == "10.0.0.1"


def test_members_alone_reach_what_a_group_uses_among_itself():
    rules = launch("a").firewall()["/etc/llm/firewall.nft"]
    lines = [line.strip() for line in rules.splitlines()]
    among = "ip saddr { 10.0.0.2/32 } tcp dport { 8001, 29000-29199, 32768-60999 } accept"
    clients = "ip saddr { 10.0.0.9/32 } tcp dport { 8001 } accept"
    ends = [
        "tcp dport { 8001 } drop",
        "tcp dport 29000-29199 drop",
        "tcp dport 32768-60999 tcp flags & (syn | ack) == syn drop",
    ]
    assert [lines.index(one) for one in (among, clients, *ends)] == sorted(
        lines.index(one) for one in (among, clients, *ends)
    )


def test_members_of_an_earlier_plan_reach_each_other_until_they_have_moved():
    state = LaunchState(manifest={"s-0": dict(files("a").entry)})
    own = HostLaunch((), LaunchSettings(), "10.0.0.1", ("10.0.0.9",))
    assert (
        "ip saddr { 10.0.0.2/32 } tcp dport { 8001, 29000-29199"
        in own.firewall(state)["/etc/llm/firewall.nft"]
    )


def test_a_replica_of_one_host_opens_nothing_to_others():
    from tests.unit.launch.assignments import launch as alone

    rules = alone().firewall()["/etc/llm/firewall.nft"]
    assert "32768" not in rules
