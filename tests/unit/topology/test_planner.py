"""The planner: practitioners' cases as they say, and laws that hold for any hardware."""

import ast
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.engine.shapes import shapes
from roles.engine.vllm.memory import memory_sum
from roles.hardware import Gpu, Hardware, declared_hardware
from roles.models import DeclaredModel, Model, shape_problems
from roles.topology import ServiceSettings, plan_fleet, plan_host
from roles.topology.serving import serve


def service(
    model: str | dict | Model = "Qwen/Qwen2.5-14B-Instruct", length: int = 4096, **more
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
    requests = ast.literal_eval(f"{{{plan.remedies[0]}}}")["min_concurrency"]
    assert plan_host(
        service(length=32768, min_concurrency=requests),
        "h",
        declared_hardware("2x NVIDIA A10G", None),
    ).replicas


def test_weights_over_all_gpus_call_for_more_of_them():
    plan = plan_host(service(), "h", declared_hardware("1x NVIDIA A10G", None))
    assert "27.6 GiB of weights, 20.3 GiB usable" in plan.rejected[0]
    assert "does not fit 1x NVIDIA A10G" in plan.problems[0]
    assert [one.partition(",  #")[0] for one in plan.remedies] == [
        '"model": "Qwen/Qwen2.5-14B-Instruct-AWQ"',
        '"gpus": "2x NVIDIA A10G"',
    ]


def test_pipeline_where_tensor_parallel_is_impossible():
    # 40 heads do not divide by 3, the 48 layers can be cut in 3 stages.
    assert planned("3x NVIDIA A10G", length=16384) == [("PP3", (0, 1, 2))]


def test_the_first_stage_holds_the_embedding_besides_its_layers():
    # 70B on 7 cards of 24 GiB: 11 layers and an embedding are 19.5 GiB, a seventh would be 18.8.
    plan = plan_host(
        service("meta-llama/Llama-3.1-70B-Instruct", 2048, min_concurrency=1),
        "h",
        declared_hardware("7x NVIDIA GeForce RTX 4090", None),
    )
    (replica,) = plan.replicas
    assert str(replica.shape) == "PP7"
    assert replica.memory.weights_gib == pytest.approx(19.52, abs=0.01)


def test_ports_follow_each_other_or_the_host():
    hardware = declared_hardware("2x NVIDIA L40S", None)
    assert [r.port for r in plan_host(service(), "h", hardware).replicas] == [8001, 8002]
    assert [r.port for r in plan_host(service(), "h", hardware, (9000, 9100)).replicas] == [
        9000,
        9100,
    ]


@pytest.mark.parametrize("ports", [(), (9000,), (9000, 9001, 9002)])
def test_a_wrong_number_of_ports_is_named_with_its_host(ports: tuple[int, ...]):
    hardware = {
        name: declared_hardware("2x NVIDIA L40S", None) for name in ("gpu-1", "gpu-2", "gpu-3")
    }
    with pytest.raises(ValueError) as error:
        plan_fleet(service(), hardware, {"gpu-1": ports, "gpu-2": (1, 2), "gpu-3": ports})
    assert str(error.value).splitlines() == [
        f"hosts[{name}].ports: {len(ports)} ports for 2 replicas; name one for each"
        for name in ("gpu-1", "gpu-3")
    ]


def test_a_host_that_serves_nothing_needs_no_ports():
    assert not plan_host(service(), "h", declared_hardware("1x NVIDIA L4", None), (1,)).replicas


@pytest.mark.parametrize(
    ("links", "message"),
    [("pcie", "TP2 over PCIe is"), ("nvlink", "TP2 over NVLink is"), (None, "TP2 is")],
)
def test_the_reason_of_a_shape_names_the_links(links: str | None, message: str):
    plan = plan_host(service(), "h", declared_hardware("2x NVIDIA GeForce RTX 3090", links))
    assert f"{message} the smallest shape that fits NVIDIA GeForce RTX 3090" in plan.reasons[-1]


@pytest.mark.parametrize(
    ("gpus", "arguments", "reason"),
    [
        # Older engines run on it: whether the host's own does is asked where that is known.
        ("8x Tesla V100-SXM2-32GB", {}, None),
        (
            "1x P100-PCIE-16GB",
            {"dtype": "half"},
            "has compute capability 6.0, vLLM needs 7.0; use a newer GPU",
        ),
        ("8x Tesla T4", {}, None),
        (
            "8x Tesla T4",
            {"dtype": "bfloat16"},
            '7.5, bfloat16 needs 8.0; set arguments: {"dtype": "half"}',
        ),
        ("8x Tesla T4", {"dtype": "half"}, None),
        ("8x Tesla T4", {"dtype": "float16"}, None),
        ("1x NVIDIA L40S", {"dtype": "half"}, None),
        ("1x NVIDIA L40S", {"max-num-seqs": 4096}, "4096 is more than the 2048 tokens"),
        ("1x NVIDIA L40S", {"max-num-seqs": 2048}, None),
    ],
)
def test_a_card_on_which_the_engine_does_not_run(gpus: str, arguments: dict, reason: str | None):
    declared = service("meta-llama/Llama-3.1-8B-Instruct", 1024, arguments=arguments)
    plan = plan_host(declared, "h", declared_hardware(gpus, None))
    assert bool(plan.replicas) == (reason is None)
    if reason:
        assert reason in plan.problems[-1]
        assert plan.warnings[0].startswith("this host serves nothing")


def test_a_card_out_of_the_table_is_as_capable_as_it_reports():
    old = Gpu(0, "NVIDIA X7", 81920, compute_capability=6.0)
    plan = plan_host(service(), "h", Hardware((old,)))
    assert plan.replicas == () and "compute capability 6.0" in plan.problems[-1]
    newer = replace(old, compute_capability=9.0)
    assert plan_host(service(), "h", Hardware((newer,))).replicas


def test_cards_without_bfloat16_compute_in_half():
    t4 = declared_hardware("8x Tesla T4")
    declared = service("meta-llama/Llama-3.1-8B-Instruct", 1024)
    assert {one.dtype for one in plan_host(declared, "h", t4).replicas} == {"half"}
    newer = plan_host(declared, "h", declared_hardware("1x NVIDIA L40S"))
    assert [one.dtype for one in newer.replicas] == [None]
    gemma = plan_host(service("google/gemma-2-9b-it", 1024), "h", t4)
    assert gemma.replicas == () and "gemma2 does not run in float16" in gemma.problems[-1]


def test_a_card_out_of_the_table_is_planned_by_its_memory():
    hardware = declared_hardware([{"name": "NVIDIA X1", "memory_mib": 49152, "count": 2}])
    plan = plan_host(service(), "h", hardware)
    assert len(plan.replicas) == 2
    assert plan.warnings == ("NVIDIA X1 is not in the table of cards: planned by what it reports",)


SIZES = {
    "name": "meta-llama/Llama-3.1-8B-Instruct",
    "weight_bytes": 16_060_522_496,
    "layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "attention_heads": 32,
    "kv_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "context_limit_tokens": 131072,
}


@pytest.mark.parametrize(
    ("sizes", "gib"),
    [
        ({}, 1_000_000),
        ({"attention_heads": 7, "kv_heads": 7, "intermediate_size": 11, "layers": 1}, 10**6),
        ({"weight_bytes": 2**39}, 16),
        ({"weight_bytes": 2**45, "vocab_size": 2**24, "hidden_size": 2**16}, 16),
        (
            {"weight_bytes": 2**45}
            | dict.fromkeys(("head_dim", "attention_heads", "kv_heads"), 2**12),
            16,
        ),
        ({"layers": 512}, 16),
        ({"attention_heads": 1, "kv_heads": 1}, 1000),
    ],
)
@pytest.mark.parametrize("needs", [(1, 1), (131072, 2**31 - 1)])
def test_odd_models_on_64_gpus_are_planned(sizes: dict, gib: int, needs: tuple[int, int]):
    odd = SIZES | sizes
    # Settings refuse such sizes; files of models and engines' own defaults may come to them.
    model = DeclaredModel.model_construct(**odd).model()
    declared = service(model, needs[0]).model_copy(update={"min_concurrency": needs[1]})
    hardware = Hardware(tuple(Gpu(i, "odd", gib * 1024) for i in range(64)))
    plan = plan_host(declared, "h", hardware)
    assert (plan.reasons if plan.replicas else plan.problems) and (plan.replicas or plan.warnings)


@pytest.mark.parametrize(
    ("card", "has_nvlink"),
    [("NVIDIA GeForce RTX 4090", False), ("NVIDIA GeForce RTX 3090", True)],
)
def test_nvlink_of_a_card_that_has_none_is_warned_of(card: str, has_nvlink: bool):
    plan = plan_host(service(), "h", declared_hardware(f"2x {card}", "nvlink"))
    assert any("has no NVLink" in warning for warning in plan.warnings) is not has_nvlink
    assert (" over NVLink" in plan.reasons[0]) is has_nvlink


def test_fleet_keeps_the_order_of_hosts():
    hardware = {
        name: declared_hardware("1x NVIDIA L40S", None) for name in ("zeta", "alpha", "mid")
    }
    plan = plan_fleet(service(), hardware)
    assert [host.host for host in plan.hosts] == ["zeta", "alpha", "mid"]
    assert [replica.host for replica in plan.replicas] == ["zeta", "alpha", "mid"]


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
def test_no_gpu_is_used_twice_and_none_is_forgotten(declared: ServiceSettings, hardware: Hardware):
    plan = plan_host(declared, "h", hardware)
    used = [index for replica in plan.replicas for index in replica.gpus]
    assert sorted([*used, *plan.spare_gpus]) == [gpu.index for gpu in hardware.gpus]
    assert plan.reasons or plan.problems


@given(services, hardware_of)
def test_replicas_fit_on_equal_cards_in_an_allowed_shape(
    declared: ServiceSettings, hardware: Hardware
):
    for replica in plan_host(declared, "h", hardware).replicas:
        cards = [hardware.gpus[index] for index in replica.gpus]
        assert len({(card.name, card.memory_mib) for card in cards}) == 1
        assert len(cards) == replica.shape.gpus
        assert replica.memory.fits
        assert not shape_problems(
            declared.model, replica.shape.tensor_parallel, replica.shape.pipeline_parallel
        )


@given(services, hardware_of)
def test_the_same_input_gives_the_same_plan(declared: ServiceSettings, hardware: Hardware):
    first = plan_host(declared, "h", hardware)
    # Not the same one, kept.
    serve.cache_clear()
    assert plan_host(declared, "h", hardware) == first


@given(services, hardware_of)
def test_memory_adds_up_to_the_card(declared: ServiceSettings, hardware: Hardware):
    for shape in shapes(2):
        memory = memory_sum(declared.model, hardware.gpus[0], shape, declared.engine_params)
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


def test_the_load_is_shared_by_what_hosts_can_read():
    declared = service("Qwen/Qwen3-8B", concurrency=120, input_tokens=512, output_tokens=128)
    machines = {
        "big": declared_hardware("8x NVIDIA H100 80GB HBM3", "nvlink"),
        "small": declared_hardware("1x NVIDIA L40S"),
    }
    plan = plan_fleet(declared, machines)
    weights = {replica.host: replica.weight for replica in plan.replicas}
    assert weights["small"] == 1 and weights["big"] >= 4
    backwards = plan_fleet(declared, dict(reversed(machines.items())))
    assert {host.host: host for host in plan.hosts} == {host.host: host for host in backwards.hosts}


def test_the_concurrency_is_that_of_the_whole_fleet():
    def loaded(requests: int) -> ServiceSettings:
        return service(concurrency=requests, input_tokens=512, output_tokens=128)

    machine = declared_hardware("4x NVIDIA L40S")
    fleet = plan_fleet(loaded(128), {"a": machine, "b": machine})
    alone = plan_host(loaded(64), "a", machine)
    assert [one.expected for one in fleet.hosts[0].replicas] == [
        one.expected for one in alone.replicas
    ]


@pytest.mark.parametrize(
    ("model", "card", "replicas"),
    [
        ("Qwen/Qwen3-8B", "NVIDIA L40S", 8),
        ("meta-llama/Llama-3.1-70B-Instruct", "NVIDIA A100-SXM4-80GB", 2),
        ("meta-llama/Llama-3.1-70B-Instruct", "NVIDIA H200", 4),
    ],
)
def test_without_a_load_the_most_replicas_that_fit_are_chosen(model: str, card: str, replicas: int):
    found = plan_host(service(model), "h", declared_hardware(f"8x {card}"))
    assert len(found.replicas) == replicas
    fewer_gpus = 8 // replicas // 2
    if fewer_gpus:
        smaller = plan_host(service(model), "h", declared_hardware(f"{fewer_gpus}x {card}"))
        # Fewer GPUs hold it with fewer requests at once alone, or not at all.
        assert all(one.max_num_seqs for one in smaller.replicas)


def test_the_cost_of_requests_follows_from_the_price():
    declared = service("Qwen/Qwen3-8B", concurrency=64, input_tokens=512, output_tokens=128)
    host = plan_host(declared, "h", declared_hardware("2x NVIDIA L40S"), price=1000.0)
    (line,) = [reason for reason in host.reasons if reason.startswith("cost: ")]
    rate = sum(one.expected.requests_per_s for one in host.replicas if one.expected)
    cost = 1000 / (rate * 365.25 / 12 * 86400) * 1000
    assert line.startswith(f"cost: {cost:.4g} per 1000 requests")


def test_a_single_endpoint_is_on_one_host():
    declared = service("Qwen/Qwen3-8B", single_endpoint=True)
    machines = {name: declared_hardware("2x NVIDIA L40S") for name in ("b", "a")}
    plan = plan_fleet(declared, machines)
    assert [(one.host, str(one.shape)) for one in plan.replicas] == [("a", "TP2")]
    assert "a is the single endpoint" in plan.hosts[0].warnings[0]


def test_an_encoder_that_is_not_split_allows_more_gpus():
    """As the refusal says: `--mm-encoder-tp-mode data` keeps the encoder whole on each GPU."""
    gpus = declared_hardware("8x NVIDIA L40S", "pcie")
    split = service("Qwen/Qwen2.5-VL-3B-Instruct", 4096, single_endpoint=True)
    assert plan_host(split, "h", gpus).replicas[0].shape.tensor_parallel < 8
    whole = service(
        "Qwen/Qwen2.5-VL-3B-Instruct",
        4096,
        single_endpoint=True,
        arguments={"mm-encoder-tp-mode": "data"},
    )
    (replica,) = plan_host(whole, "h", gpus).replicas
    assert replica.shape.tensor_parallel == 8
    # Its 0.67 billion parameters are not divided.
    assert replica.memory.weights_gib > 1.2 + 6.2 / 8
