"""Replicas over several hosts in an inventory: what is built of them, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roles.declaration import Declaration
from roles.fleet import build, host_launch, routes
from roles.stages.admission import host_needs
from tests.unit.fleet.test_fleet import declared, problems
from tests.unit.fleet.test_fleet import key as key


def hosts(**more: Any) -> dict[str, Any]:
    return {
        **{
            f"gpu-{n}": ("gpu_hosts", {"gpus": "1x NVIDIA L40S", **more}, f"10.0.0.1{n}")
            for n in (1, 2)
        },
        "lb-1": ("balancers", {}, "10.0.0.10"),
    }


@pytest.fixture
def engine_key(key: Path) -> dict[str, str]:
    """The balancer's settings with a key of engines."""
    file = key.with_name("engine.key")
    file.write_text("e" * 32 + "\n")
    file.chmod(0o600)
    return {"engine_key_file": str(file)}


GROUP = {"members": [{"hosts": ["gpu-2", "gpu-1"], "tensor_parallel_size": 2}]}


def test_the_first_host_answers_and_each_has_its_part(key: Path, engine_key: dict[str, str]):
    fleet = build(declared(key, hosts(), service=GROUP, balancer=engine_key))
    (route,) = routes(fleet)
    assert [(one.id, one.endpoint) for one in route.members] == [("gpu-2/qwen-0", "10.0.0.12:8001")]
    entries = {name: host_launch(fleet, name).replicas[0].entry for name in ("gpu-1", "gpu-2")}
    assert entries["gpu-2"]["rank"] == 0 and entries["gpu-1"]["rank"] == 1
    assert entries["gpu-1"]["head"] == "10.0.0.12"
    # Both install the engine.
    assert len(fleet.engines_on("gpu-1")) == len(fleet.engines_on("gpu-2")) == 1


def with_networks(first: str | None, second: str | None) -> dict[str, Any]:
    """The hosts, each with an address of another network."""
    known = hosts()
    for name, address in (("gpu-1", first), ("gpu-2", second)):
        known[name][1].update({"members_address": address} if address else {})
    return known


def test_hosts_reach_each_other_by_the_network_that_they_name(
    key: Path, engine_key: dict[str, str]
):
    known = with_networks("198.51.100.1", "198.51.100.2")
    fleet = build(declared(key, known, service=GROUP, balancer=engine_key))
    entry = host_launch(fleet, "gpu-1").replicas[0].entry
    assert entry["addresses"] == ["198.51.100.2", "198.51.100.1"]
    rules = host_launch(fleet, "gpu-1").firewall()["/etc/llm/firewall.nft"]
    # It may send from either of its addresses.
    assert "ip saddr { 10.0.0.12/32, 198.51.100.2/32 } tcp dport { 8001," in rules
    # Balancers and clients know the usual one.
    assert routes(fleet)[0].members[0].address == "10.0.0.12"


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (None, "198.51.100.2", "hosts[gpu-1].members_address: there is none"),
        ("fd00::1", "fd00::2", "hosts[gpu-1].members_address: fd00::1 is of IPv6"),
        ("198.51.100.1", "198.51.100.1", "hosts[gpu-2].members_address: 198.51.100.1 is also that"),
        ("10.0.0.12", "198.51.100.2", "hosts[gpu-1].members_address: 10.0.0.12 is also that of"),
        ("127.0.0.1", "198.51.100.2", "hosts[gpu-1].members_address: 127.0.0.1 reaches nobody"),
    ],
)
def test_hosts_that_would_not_meet_are_refused(
    key: Path, first: str | None, second: str | None, problem: str
):
    found = problems(declared(key, with_networks(first, second), service=GROUP))
    assert any(one.startswith(problem) for one in found), found


def test_hosts_of_one_replica_have_addresses_of_one_kind(key: Path):
    known = hosts()
    known["gpu-1"] = (*known["gpu-1"][:2], "fd00::1")
    found = problems(declared(key, known, service=GROUP))
    assert any(one.startswith("hosts[gpu-2].address: gpu-2, gpu-1 run one") for one in found), found


def test_a_network_of_hosts_without_a_group_may_be_named(key: Path):
    known = with_networks("198.51.100.1", None)
    assert build(declared(key, known)).host("gpu-1").members_address == "198.51.100.1"


@pytest.mark.parametrize(
    ("fleet", "problem"),
    [
        ({"watchdog": {"port": 40022}}, "watchdog.port: "),
        ({"balancer": {"port": 40443}}, "balancer.port: "),
        ({"service": GROUP | {"route": {"port": 60999}}}, "services[0].route.port: "),
        ({"ssh_port": 40022}, "hosts[gpu-1].ssh_port: "),
    ],
)
def test_a_port_that_the_firewall_would_shut_is_refused(
    key: Path, fleet: dict[str, Any], problem: str
):
    ssh = {name: fleet[name] for name in fleet if name == "ssh_port"}
    other = {"service": GROUP} | {name: fleet[name] for name in fleet if name != "ssh_port"}

    def inventory(service: dict[str, Any]) -> Declaration:
        made = declared(key, hosts(), **(other | {"service": service}))
        own = {
            name: replace(
                one,
                ssh=ssh,
                groups=one.groups | {"balancers"} if name == "gpu-1" else one.groups,
            )
            for name, one in made.hosts.items()
            if name != "lb-1"
        }
        return replace(made, hosts=own)

    found = problems(inventory(other["service"]))
    assert any(one.startswith(problem) and "gpu-1" in one for one in found), found
    # Without a replica over several hosts the firewall leaves these ports alone.
    alone = {name: value for name, value in other["service"].items() if name != "members"}
    assert build(inventory(alone)).plans[0].replicas


def test_ports_of_a_host_that_has_parts_alone_are_refused(key: Path):
    known = hosts()
    known["gpu-1"][1]["ports"] = [9001]
    found = problems(declared(key, known, service=GROUP))
    assert any(one.startswith("hosts[gpu-1].ports: ") and "gpu-2" in one for one in found), found


def test_a_port_of_a_part_is_its_heads_to_change(key: Path):
    made = declared(key, hosts(), service=GROUP, balancer={"port": 8001})
    both = replace(made.hosts["gpu-1"], groups=frozenset({"gpu_hosts", "balancers"}))
    made = replace(made, hosts={"gpu-1": both, "gpu-2": made.hosts["gpu-2"]})
    (one,) = [one for one in problems(made) if "8001" in one]
    assert one.startswith("hosts[gpu-2].ports: ") and "gpu-1" in one


@pytest.mark.parametrize(
    ("service", "engines", "problem"),
    [
        ({"members": [["gpu-1", "lb-1"]]}, {}, "services[0].members[0].hosts[1]: lb-1 has no GPUs"),
        ({"members": [["gpu-1", "gpu-9"]]}, {}, "services[0].members[0].hosts[1]: gpu-9 has no"),
        (GROUP | {"executor": "ray"}, {}, "services[0].executor: ray is not among the packages"),
        (
            GROUP,
            {"requirement": "vllm==0.11.0", "allow_unhashed": True},
            "services[0].executor: vLLM 0.11.0 has no multi-node mode of its own",
        ),
    ],
)
def test_what_cannot_be_joined_is_refused(
    key: Path, service: dict[str, Any], engines: dict[str, Any], problem: str
):
    found = problems(declared(key, hosts(), service=service, engines={"vllm": engines}))
    assert any(one.startswith(problem) for one in found), found


def test_ray_is_taken_where_nobody_knows_the_packages(key: Path):
    engines = {"vllm": {"requirement": "vllm==0.33.0", "allow_unhashed": True}}
    fleet = build(declared(key, hosts(), service=GROUP | {"executor": "ray"}, engines=engines))
    assert fleet.plans[0].replicas[0].executor == "ray"


def test_hosts_of_a_replica_alone_must_give_the_ports_that_their_firewall_closes(
    key: Path, engine_key: dict[str, str]
):
    def given(**more: Any) -> list[tuple[int, int] | None]:
        fleet = build(declared(key, hosts(), balancer=engine_key, **more))
        needed = [host_needs(fleet, fleet.host(name)).engine for name in ("gpu-1", "gpu-2")]
        return [one.given_ports for one in needed if one]

    assert given(service=GROUP) == [(32768, 60999)] * 2
    assert given() == given(service=GROUP, launch={"firewall": False}) == [None] * 2


def test_hosts_of_a_replica_run_the_same_engine(key: Path):
    known = hosts()
    own = {"vllm": {"requirement": "vllm==0.32.0", "allow_unhashed": True}}
    known["gpu-1"][1]["engines"] = own
    found = problems(declared(key, known, service=GROUP))
    assert any(one.startswith("services[0].members: gpu-2, gpu-1 run one replica") for one in found)


def test_hosts_of_a_replica_run_the_engine_alike(key: Path, engine_key: dict[str, str]):
    known = hosts()
    known["gpu-1"][1]["engines"] = {"vllm": {"environment": {"NCCL_ALGO": "Ring"}}}
    found = problems(declared(key, known, service=GROUP, balancer=engine_key))
    assert any(one.startswith("services[0].members: gpu-2, gpu-1 run one replica") for one in found)
    # An interface has another name on each host.
    known["gpu-1"][1]["engines"] = {"vllm": {"environment": {"NCCL_SOCKET_IFNAME": "eth3"}}}
    assert build(declared(key, known, service=GROUP, balancer=engine_key))


def test_a_retired_host_is_no_member(key: Path):
    known = hosts()
    known["gpu-1"][1]["retired"] = True
    found = problems(declared(key, known, service=GROUP))
    assert any("services[0].members[0].hosts[1]: gpu-1 has no GPUs" in one for one in found)


def test_a_port_of_a_part_is_taken_on_its_host(key: Path):
    other = {"name": "b", "model": "Qwen/Qwen2.5-7B-Instruct", "max_model_len": 4096}
    known = hosts(gpus="2x NVIDIA L40S")
    first = declared(key, known, service=GROUP)
    services = [
        *first.fleet["services"],
        other | {"route": {"path_prefix": "/b", "api_key_file": str(key)}},
    ]
    clash = declared(key, known)
    clash = type(clash)("test", {**clash.fleet, "services": services}, clash.hosts)
    found = problems(clash)
    assert any(one.startswith("hosts[gpu-1].ports: ") and "8001" in one for one in found), found
