"""Replicas over several hosts in an inventory: what is built of them, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from roles.fleet import build, host_launch, routes
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


def test_hosts_reach_each_other_by_the_network_that_they_name(
    key: Path, engine_key: dict[str, str]
):
    known = hosts()
    known["gpu-2"][1]["members_address"] = "198.51.100.2"
    fleet = build(declared(key, known, service=GROUP, balancer=engine_key))
    entry = host_launch(fleet, "gpu-1").replicas[0].entry
    assert entry["addresses"] == ["198.51.100.2", "10.0.0.11"]
    rules = host_launch(fleet, "gpu-1").firewall()["/etc/llm/firewall.nft"]
    assert "ip saddr { 198.51.100.2/32 } tcp dport { 8001," in rules
    # Balancers and clients know the usual one.
    assert routes(fleet)[0].members[0].address == "10.0.0.12"


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


def test_hosts_of_a_replica_run_the_same_engine(key: Path):
    known = hosts()
    own = {"vllm": {"requirement": "vllm==0.32.0", "allow_unhashed": True}}
    known["gpu-1"][1]["engines"] = own
    found = problems(declared(key, known, service=GROUP))
    assert any(one.startswith("services[0].members: gpu-2, gpu-1 run one replica") for one in found)


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
