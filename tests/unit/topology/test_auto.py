"""The engine that the plan chooses by its estimate, among those that the inventory has."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from roles.hardware import declared_hardware
from roles.plan import Plan
from roles.topology import ServiceSettings, decided, plan_fleet

H100 = {"gpu-1": declared_hardware("2x NVIDIA H100 80GB HBM3", None)}
BOTH = ("vllm", "sglang")


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


def planner(**rates: tuple[float, float, float]) -> Callable[[ServiceSettings], Plan]:
    """Real plans, with other estimates by engine."""

    def planned(wanted: ServiceSettings) -> Plan:
        plan = plan_fleet(wanted, H100)
        if wanted.kind not in rates:
            return plan
        low, middle, high = rates[wanted.kind]
        (host,) = plan.hosts
        parts = {"tokens_per_s_low": low, "tokens_per_s": middle, "tokens_per_s_high": high}
        each = {name: value / len(host.replicas) for name, value in parts.items()}
        replicas = tuple(
            replace(one, expected=replace(one.expected, **each))  # type: ignore[arg-type]
            for one in host.replicas
        )
        return replace(plan, hosts=(replace(host, replicas=replicas),))

    return planned


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
        ({"engine": "vllm"}, ("sglang",), "vllm", ""),
    ],
)
def test_what_is_not_compared(more: dict[str, Any], allowed: tuple[str, ...], kind: str, part: str):
    found = decided(service(**more), allowed, planner())
    assert (found.kind, part in found.engine_reason) == (kind, True)


def test_a_card_that_one_of_them_does_not_run_on_is_named():
    cards = {"gpu-1": declared_hardware("2x Tesla T4", None)}
    small = service(model="Qwen/Qwen2.5-1.5B-Instruct")
    found = decided(small, BOTH, lambda one: plan_fleet(one, cards))
    assert found.kind == "vllm"
    assert "SGLang has no estimate for Tesla T4, vLLM has" in found.engine_reason


def test_real_estimates_overlap():
    found = decided(service(), BOTH, lambda one: plan_fleet(one, H100))
    assert found.kind == "vllm" and "the ranges overlap, so vLLM stays" in found.engine_reason
