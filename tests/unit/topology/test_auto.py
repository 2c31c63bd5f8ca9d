"""The engine that the plan chooses by its estimate, among those that the inventory has."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roles.hardware import declared_hardware
from roles.hardware.declared import GpuDeclaration
from roles.plan import HostPlan, Plan, Replica
from roles.topology import ServiceSettings, decided, plan_fleet
from roles.topology.explain import explain
from tests.adapters import peft

H100 = {"gpu-1": declared_hardware("2x NVIDIA H100 80GB HBM3", None)}
BOTH = ("vllm", "sglang")
Planner = Callable[[ServiceSettings], Plan]


def service(**more: Any) -> ServiceSettings:
    own: dict[str, Any] = {
        "name": "chat",
        "engine": "auto",
        "model": "Qwen/Qwen2.5-14B-Instruct",
        "max_model_len": 4096,
        "concurrency": 16,
        "recipe": False,
    }
    return ServiceSettings.model_validate(own | more)


def planner(hosts: dict[str, Any] = H100, **rates: tuple[float, float, float]) -> Planner:
    """Real plans, with other estimates of H100s by engine."""

    def other(replica: Replica, of: int) -> Replica:
        if replica.engine not in rates or replica.expected is None:
            return replica
        names = ("tokens_per_s_low", "tokens_per_s", "tokens_per_s_high")
        each = dict(zip(names, (one / of for one in rates[replica.engine]), strict=True))
        return replace(replica, expected=replace(replica.expected, **each))

    def planned(wanted: ServiceSettings) -> Plan:
        plan = plan_fleet(wanted, hosts)
        return replace(plan, hosts=tuple(map(with_rates, plan.hosts)))

    def with_rates(host: HostPlan) -> HostPlan:
        fast = {gpu.index for gpu in host.gpus if "H100" in gpu.name}
        of = sum(one.gpus[0] in fast for one in host.replicas)
        replicas = (other(one, of) if one.gpus[0] in fast else one for one in host.replicas)
        return replace(host, replicas=tuple(replicas))

    return planned


VISION = "meta-llama/Llama-3.2-11B-Vision-Instruct"
VLLM = (900.0, 1000.0, 1100.0)


@pytest.mark.parametrize(
    ("sglang", "kind", "words"),
    [
        (
            (1101, 1200, 1300),
            "sglang",
            ("1,000 tokens/s (900-1,100)", "1,200 tokens/s (1,101-1,300)"),
        ),
        ((1099, 1200, 1300), "vllm", ("1,200 tokens/s", "the ranges overlap, so vLLM stays")),
        ((700, 800, 899), "vllm", ("800 tokens/s (700-899)", "H100")),
    ],
)
def test_only_an_estimate_without_doubt_decides(
    sglang: tuple[float, float, float], kind: str, words: tuple[str, ...]
):
    found = decided(service(), BOTH, planner(vllm=VLLM, sglang=sglang))
    assert found.kind == kind
    assert all(one in found.engine_reason for one in words)
    # The plan has the reason, too.
    assert plan_fleet(found, H100).hosts[0].reasons[0] == found.engine_reason


@pytest.mark.parametrize(
    ("more", "allowed", "kind", "part"),
    [
        ({}, (), "vllm", "the model is safetensors files"),
        ({}, ("vllm",), "vllm", "the model is safetensors files"),
        ({}, ("sglang",), "sglang", "the inventory has no other"),
        ({"concurrency": None}, BOTH, "vllm", "without concurrency nothing is compared"),
        ({"model": "Qwen/Qwen3-8B", "recipe": True}, BOTH, "vllm", "options of its recipe"),
        # An option that the other engine does not know keeps the one that does.
        ({"arguments": {"max-num-seqs": 64}}, BOTH, "vllm", "the model is safetensors files"),
        # So does a parser that the other lacks.
        (
            {"arguments": {"reasoning-parser": "deepseek_r1"}},
            *(BOTH, "vllm", "the model is safetensors files"),
        ),
        ({"engine": "vllm"}, ("sglang",), "vllm", ""),
    ],
)
def test_what_is_not_compared(more: dict[str, Any], allowed: tuple[str, ...], kind: str, part: str):
    found = decided(service(**more), allowed, planner())
    assert (found.kind, part in found.engine_reason) == (kind, True)


FASTER = {"vllm": VLLM, "sglang": (1101.0, 1200.0, 1300.0)}
SMALL = "Qwen/Qwen2.5-1.5B-Instruct"
TWO_KINDS = [
    GpuDeclaration(name="Tesla T4", count=2),
    GpuDeclaration(name="NVIDIA H100 80GB HBM3"),
]
MIXED = {
    "gpu-1": declared_hardware("2x NVIDIA H100 80GB HBM3", None),
    "gpu-2": declared_hardware("2x Tesla T4", None),
    "gpu-3": declared_hardware(TWO_KINDS, None),
}


def engines(plan: Plan) -> dict[str, list[str]]:
    """The engines of each host's replicas, in order."""
    return {host.host: [one.engine for one in host.replicas] for host in plan.hosts}


def test_each_kind_of_card_gets_its_engine():
    wanted = service(model=SMALL)
    found = decided(wanted, BOTH, planner(MIXED, **FASTER))
    plan = plan_fleet(found, MIXED)
    assert engines(plan) == {
        "gpu-1": ["sglang", "sglang"],
        "gpu-2": ["vllm"],
        "gpu-3": ["vllm", "sglang"],
    }
    # Replicas of a host count through, whatever their engines.
    mixed = plan.hosts[2]
    assert [(one.name, one.port, one.gpus) for one in mixed.replicas] == [
        ("chat-0", 8001, (0, 1)),
        ("chat-1", 8002, (2,)),
    ]
    assert [one.dtype for one in mixed.replicas] == ["half", None]
    # A host says why of its own cards alone.
    assert "SGLang does not serve it on Tesla T4" in plan.hosts[1].reasons[0]
    assert not any("H100" in one for one in plan.hosts[1].reasons)
    words = " ".join(mixed.reasons[:2])
    assert "vLLM serves it: SGLang" in words and "SGLang serves it: on NVIDIA H100" in words


def test_the_table_of_a_plan_names_engines_where_they_differ():
    found = decided(service(model=SMALL), BOTH, planner(MIXED, **FASTER))
    header, _, *rows = explain(plan_fleet(found, MIXED)).split("\n\n")[1].splitlines()
    assert header.endswith("engine")
    assert [row.split()[0] + " " + row.split()[-1] for row in rows] == [
        *("gpu-1 SGLang", "gpu-2 vLLM", "gpu-3 vLLM", "gpu-3 SGLang"),
    ]
    one = explain(plan_fleet(service(), H100))
    assert "engine" not in one.split("\n\n")[1]


def test_the_load_of_a_host_with_two_engines_is_shared_as_with_one():
    wanted = service(model=SMALL)
    found = decided(wanted, BOTH, planner(MIXED, **FASTER))
    (by_two,) = plan_fleet(found, {"h": MIXED["gpu-3"]}).hosts
    (by_one,) = plan_fleet(wanted.with_engine("vllm"), {"h": MIXED["gpu-3"]}).hosts
    assert by_two.replicas[0] == by_one.replicas[0]
    assert [one.weight for one in by_two.replicas] == [one.weight for one in by_one.replicas]


@pytest.mark.parametrize("cards", ["2x Tesla T4", "4x NVIDIA A10G"])
def test_a_card_that_one_of_them_does_not_serve_is_the_other_s(cards: str):
    """vLLM leaves no memory on A10Gs for the cross attention of this model, SGLang does."""
    hosts = {"gpu-1": declared_hardware(cards, None)}
    model = SMALL if "T4" in cards else VISION
    for concurrency in (16, None):
        wanted = service(model=model, max_model_len=2048, concurrency=concurrency)
        found = decided(wanted, BOTH, lambda one: plan_fleet(one, hosts))
        alone, other = ("vllm", "SGLang") if "T4" in cards else ("sglang", "vLLM")
        assert found.kinds == (alone,) and plan_fleet(found, hosts).replicas
        assert f"{other} does not serve it on " in found.engine_reason


def test_one_engine_serves_all_cards_where_clients_see_which(tmp_path: Path):
    style = peft(tmp_path / "style", SMALL, modules={"self_attn.q_proj": (1536, 1536)})
    wanted = service(model=SMALL, adapters={"style": str(style)})
    found = decided(wanted, BOTH, planner(MIXED, **FASTER))
    assert found.kinds == ("vllm",) and "name adapters differently" in found.engine_reason
    # Where the other is better on all cards, it is the one.
    assert decided(wanted, BOTH, planner(H100, **FASTER)).kinds == ("sglang",)


def test_one_replica_in_all_has_the_engine_of_its_card():
    found = decided(service(model=SMALL, single_endpoint=True), BOTH, planner(MIXED, **FASTER))
    (replica,) = plan_fleet(found, MIXED).replicas
    assert (replica.host, replica.engine) == ("gpu-1", "sglang")


def test_real_estimates_overlap():
    found = decided(service(), BOTH, lambda one: plan_fleet(one, H100))
    assert found.kind == "vllm" and "the ranges overlap, so vLLM stays" in found.engine_reason
