"""A service whose engines the plan chooses for each kind of card, through all of a fleet."""

from pathlib import Path
from typing import Any

from roles.fleet import build
from roles.fleet.launching import host_launch
from roles.plan import saved
from roles.stages.validation import planned_replicas
from tests.unit.fleet.test_fleet import HOSTS, declared, problems
from tests.unit.fleet.test_fleet import key as key

# By their memory rules vLLM does not serve this model on A10Gs, SGLang does; on L40S both do.
SERVICE: dict[str, Any] = {
    "model": "meta-llama/Llama-3.2-11B-Vision-Instruct",
    "max_model_len": 2048,
    "engine": "auto",
    "concurrency": 16,
    "recipe": False,
}


def test_each_kind_of_card_has_the_build_of_its_engine(key: Path):
    hosts = {
        "gpu-1": ("gpu_hosts", {"gpus": "2x NVIDIA L40S"}, "10.0.0.11"),
        "gpu-2": ("gpu_hosts", {"gpus": "4x NVIDIA A10G"}, "10.0.0.12"),
        "gpu-3": (
            "gpu_hosts",
            {
                "gpus": [{"name": "NVIDIA L40S"}, {"name": "NVIDIA A10G", "count": 4}],
                "engines": {"sglang": {"environment": {"A": "1"}}},
            },
            "10.0.0.13",
        ),
        "lb-1": HOSTS["lb-1"],
    }
    fleet = build(declared(key, hosts, service=SERVICE, engines={"vllm": {}, "sglang": {}}))
    (plan,) = fleet.plans
    engines = {host.host: {one.engine for one in host.replicas} for host in plan.hosts}
    assert engines == {"gpu-1": {"vllm"}, "gpu-2": {"sglang"}, "gpu-3": {"vllm", "sglang"}}
    # What a host installs and starts is that of its own replicas.
    installed = {name: [one.kind for one in fleet.engines_on(name)] for name in engines}
    assert installed == {"gpu-1": ["vllm"], "gpu-2": ["sglang"], "gpu-3": ["vllm", "sglang"]}
    assert fleet.engine_of("gpu-3", "qwen", "sglang").environment == {"A": "1"}
    assert fleet.engine_of("gpu-2", "qwen", "sglang").environment == {}
    (key.parent / "test").mkdir()
    engines_key = key.parent / "test" / "engines.key"
    engines_key.write_text("e" * 32 + "\n")
    engines_key.chmod(0o600)
    started = {one.replica.name: one for one in host_launch(fleet, "gpu-3").assignments}
    assert {name: one.engine for name, one in started.items()} == {
        one.name: one.engine for one in plan.hosts[2].replicas
    }
    assert {one.build.kind for one in started.values()} == {"vllm", "sglang"}
    # Each is proved by what its own engine is to do.
    proved = planned_replicas(fleet, fleet.host("gpu-3"))
    assert [one.name for one in proved] == [one.name for one in plan.hosts[2].replicas]
    # The saved plan has the engine of each.
    assert saved(fleet.plans).count("engine: sglang") == sum(
        one.engine == "sglang" for one in plan.replicas
    )


def test_a_problem_with_the_engine_that_the_plan_chose_is_reported(key: Path):
    hosts = {
        "gpu-2": (
            "gpu_hosts",
            {"gpus": "4x NVIDIA A10G", "driver": {"branch": 570}},
            "10.0.0.12",
        ),
        "lb-1": HOSTS["lb-1"],
    }
    engines = {"vllm": {"requirement": "vllm==0.19.1", "allow_unhashed": True}, "sglang": {}}
    found = problems(declared(key, hosts, service=SERVICE, engines=engines))
    assert any("sglang" in one and "hosts[gpu-2]" in one for one in found), found


def test_hosts_that_are_not_set_up_for_an_engine_keep_the_usual_one(key: Path):
    """SGLang needs driver 580: where vLLM serves the cards as well, nothing is refused."""
    old = {"engines": {"vllm": {"requirement": "vllm==0.19.1", "allow_unhashed": True}}}
    hosts = {
        "gpu-1": (
            "gpu_hosts",
            {"gpus": "2x NVIDIA L40S", "driver": {"branch": 570}} | old,
            "10.0.0.11",
        ),
        "gpu-2": ("gpu_hosts", {"gpus": "4x NVIDIA A10G"}, "10.0.0.12"),
        "lb-1": HOSTS["lb-1"],
    }
    fleet = build(declared(key, hosts, service=SERVICE, engines={"vllm": {}, "sglang": {}}))
    (plan,) = fleet.plans
    assert [{one.engine for one in host.replicas} for host in plan.hosts] == [{"vllm"}, {"sglang"}]
    assert "hosts with NVIDIA L40S are not set up for SGLang" in plan.hosts[0].reasons[0]


def test_a_card_beside_one_that_an_engine_does_not_run_on_may_have_it(key: Path):
    gpus = [{"name": "Tesla T4"}, {"name": "NVIDIA A10G", "count": 4}]
    hosts = {"gpu-1": ("gpu_hosts", {"gpus": gpus}, "10.0.0.11"), "lb-1": HOSTS["lb-1"]}
    fleet = build(declared(key, hosts, service=SERVICE, engines={"vllm": {}, "sglang": {}}))
    # The model is too large for the T4, by either.
    assert {one.engine for one in fleet.plans[0].replicas} == {"sglang"}
    small = SERVICE | {"model": "Qwen/Qwen2.5-1.5B-Instruct"}
    fleet = build(declared(key, hosts, service=small, engines={"vllm": {}, "sglang": {}}))
    (reason, *_) = fleet.plans[0].hosts[0].reasons
    # What is compared on the A10Gs is the estimate, not what the T4 lacks.
    assert "SGLang does not serve it on Tesla T4" in reason
    assert "on NVIDIA A10G vLLM has an estimated" in reason
