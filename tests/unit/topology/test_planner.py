"""The planner: practitioners' cases as they say, and laws that hold for any hardware."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware import Gpu, Hardware, declared_hardware
from roles.topology import ServiceSettings, plan_fleet, plan_host
from roles.topology.memory import kv_needed_tokens, memory_sum
from roles.topology.shapes import objection, shapes


def service(
    model: str = "Qwen/Qwen2.5-14B-Instruct", length: int = 4096, **more
) -> ServiceSettings:
    return ServiceSettings.model_validate(
        {"name": "s", "model": model, "max_model_len": length, **more}
    )


def planned(gpus: str, **more) -> list[tuple[str, tuple[int, ...]]]:
    plan = plan_host(service(**more), "h", declared_hardware(gpus, None))
    return [(str(replica.shape), replica.gpus) for replica in plan.replicas]


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ("2x NVIDIA L40S", [("one GPU", (0,)), ("one GPU", (1,))]),
        ("2x NVIDIA GeForce RTX 4090", [("TP2", (0, 1))]),
        ("4x NVIDIA A10G", [("TP2", (0, 1)), ("TP2", (2, 3))]),
        # An odd card stays spare; 40 heads do not divide by 3.
        ("3x NVIDIA A10G", [("TP2", (0, 1))]),
        ("1x NVIDIA A10G", []),
        # Mixed cards: no tensor parallel over unequal ones.
        ("1x NVIDIA L40S + 2x NVIDIA A10G", [("one GPU", (0,)), ("TP2", (1, 2))]),
        ("1x NVIDIA L40S + 1x NVIDIA A10G", [("one GPU", (0,))]),
    ],
)
def test_shape_by_hardware(gpus: str, expected: list):
    assert planned(gpus) == expected


def test_a_longer_request_needs_more_gpus():
    # 8 requests of 16384 tokens are 24 GiB of KV cache: two A10G have 9.
    assert planned("4x NVIDIA A10G", length=16384) == [("TP4", (0, 1, 2, 3))]


def test_spare_gpus_are_named():
    plan = plan_host(service(), "h", declared_hardware("3x NVIDIA A10G", None))
    assert plan.spare_gpus == (2,)
    assert plan.warnings == ("spare GPUs: 2",)


def test_what_does_not_fit_says_what_would():
    plan = plan_host(service(length=32768), "h", declared_hardware("2x NVIDIA A10G", None))
    assert plan.replicas == ()
    assert "it would with max_model_len" in plan.reasons[-1]
    length = int(plan.reasons[-1].split("max_model_len ")[1].split(",")[0])
    assert plan_host(
        service(length=length), "h", declared_hardware("2x NVIDIA A10G", None)
    ).replicas


def test_weights_over_all_gpus_call_for_more_of_them():
    plan = plan_host(service(), "h", declared_hardware("1x NVIDIA A10G", None))
    assert "27.8 GiB of weights, 20.2 GiB usable" in plan.reasons[0]
    assert "use more or larger GPUs" in plan.reasons[-1]


def test_pipeline_where_tensor_parallel_is_impossible():
    # 70B on 7 cards of 24 GiB: 64 heads do not divide by 7, the layers can be cut in 7 stages.
    plan = plan_host(
        service("meta-llama/Llama-3.1-70B-Instruct", 2048, min_concurrency=1),
        "h",
        declared_hardware("7x NVIDIA GeForce RTX 4090", None),
    )
    assert [str(replica.shape) for replica in plan.replicas] == ["PP7"]


def test_ports_follow_each_other_or_the_host():
    hardware = declared_hardware("2x NVIDIA L40S", None)
    assert [r.port for r in plan_host(service(), "h", hardware).replicas] == [8001, 8002]
    assert [r.port for r in plan_host(service(), "h", hardware, (9000, 9100)).replicas] == [
        9000,
        9100,
    ]
    with pytest.raises(ValueError, match="1 ports for 2 replicas"):
        plan_host(service(), "h", hardware, (9000,))


def test_fleet_keeps_the_order_of_hosts():
    hardware = {
        name: declared_hardware("1x NVIDIA L40S", None) for name in ("zeta", "alpha", "mid")
    }
    plan = plan_fleet(service(), hardware)
    assert [host.host for host in plan.hosts] == ["zeta", "alpha", "mid"]
    assert [replica.host for replica in plan.replicas] == ["zeta", "alpha", "mid"]


@pytest.mark.parametrize(
    ("model", "gib_per_token_mib"),
    [("meta-llama/Llama-3.1-8B-Instruct", 131072), ("Qwen/Qwen2.5-14B-Instruct", 196608)],
)
def test_kv_bytes_per_token(model: str, gib_per_token_mib: int):
    assert service(model).model.kv_bytes_per_token == gib_per_token_mib


hardware_of = st.builds(
    lambda cards: Hardware(tuple(Gpu(i, name, mib) for i, (name, mib) in enumerate(cards))),
    st.lists(
        st.tuples(st.sampled_from(["A", "B", "NVIDIA A100"]), st.integers(8000, 200000)),
        min_size=1,
        max_size=9,
    ),
)
services = st.builds(
    lambda model, length, requests: service(model, length, min_concurrency=requests),
    st.sampled_from(
        [
            "Qwen/Qwen2.5-14B-Instruct",
            "meta-llama/Llama-3.1-8B-Instruct",
            "meta-llama/Llama-3.1-70B-Instruct",
        ]
    ),
    st.integers(1, 32768),
    st.integers(1, 64),
)


@given(services, hardware_of)
def test_no_gpu_is_used_twice_and_none_is_forgotten(asked: ServiceSettings, hardware: Hardware):
    plan = plan_host(asked, "h", hardware)
    used = [index for replica in plan.replicas for index in replica.gpus]
    assert sorted([*used, *plan.spare_gpus]) == [gpu.index for gpu in hardware.gpus]
    assert plan.reasons


@given(services, hardware_of)
def test_replicas_fit_on_equal_cards_in_an_allowed_shape(
    asked: ServiceSettings, hardware: Hardware
):
    for replica in plan_host(asked, "h", hardware).replicas:
        cards = [hardware.gpus[index] for index in replica.gpus]
        assert len({(card.name, card.memory_mib) for card in cards}) == 1
        assert len(cards) == replica.shape.gpus
        assert replica.memory.fits
        assert not objection(asked.model, replica.shape)


@given(services, hardware_of)
def test_the_same_input_gives_the_same_plan(asked: ServiceSettings, hardware: Hardware):
    assert plan_host(asked, "h", hardware) == plan_host(asked, "h", hardware)


@given(services, hardware_of)
def test_memory_adds_up_to_the_card(asked: ServiceSettings, hardware: Hardware):
    tokens = kv_needed_tokens(asked.max_model_len, asked.min_concurrency)
    for shape in shapes(2):
        memory = memory_sum(asked.model, hardware.gpus[0], shape, 0.92, tokens)
        parts = (
            memory.driver_gib
            + memory.headroom_gib
            + memory.weights_gib
            + memory.sampler_gib
            + memory.activations_gib
            + memory.graphs_gib
            + memory.workspace_gib
            + memory.kv_cache_gib
        )
        assert parts == pytest.approx(memory.total_gib)


@given(st.integers(1, 16))
def test_shapes_are_every_split_once(gpus: int):
    found = shapes(gpus)
    assert len(set(found)) == len(found)
    assert {shape.gpus for shape in found} == set(range(1, gpus + 1))
