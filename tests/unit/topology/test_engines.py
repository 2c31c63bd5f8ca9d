"""Services of several engines: which one serves, and one replica over cards of several kinds."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from roles.engine.engine import ENGINES, engine
from roles.engine.params import gpu_memory
from roles.hardware import Hardware, declared_hardware
from roles.plan import HostPlan, MemorySum, Shape, saved
from roles.topology import ServiceSettings, explain, plan_fleet, plan_host
from tests.gguf_models import gguf_model

RTX_4090, RTX_3090 = "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3090"
SMALL, LARGE = "NVIDIA GeForce RTX 3060 12GB", "NVIDIA L40S"


def hardware(*gpus: str) -> Hardware:
    return declared_hardware([{"name": name} for name in gpus], None)


def service(name: str = "gemma-3-12b-it", **more: Any) -> ServiceSettings:
    own = {"weights": "/srv/m.gguf", "max_model_len": 8192, "min_concurrency": 4}
    return ServiceSettings.model_validate({"name": "chat", "model": gguf_model(name)} | own | more)


def planned(*gpus: str, **more: Any) -> HostPlan:
    return plan_host(service(**more), "h", hardware(*gpus))


def test_a_model_that_fits_one_card_has_a_replica_on_each():
    plan = planned(RTX_4090, RTX_3090, RTX_3090, name="Llama-3.1-8B-Instruct")
    assert [(one.gpus, one.shape) for one in plan.replicas] == [
        ((0,), Shape(1)),
        ((1,), Shape(1)),
        ((2,), Shape(1)),
    ]
    assert {one.engine for one in plan.replicas} == {"llama_cpp"}


def test_layers_lie_over_mixed_cards_where_none_holds_the_model():
    (replica,) = planned(RTX_4090, RTX_3090).replicas
    assert replica.gpus == (0, 1)
    assert replica.shape == Shape(1, 2, tensor_split=(22.5, 22.6))
    # The sum is that of the card with less left: it has the output.
    memory = replica.memory
    assert memory.fits and memory.kv_tokens == 4 * 8192
    assert memory.weights_gib == pytest.approx(11.5, abs=0.1)
    parts = (memory.driver_gib, memory.headroom_gib, memory.weights_gib, memory.activations_gib)
    assert sum(parts) + memory.kv_cache_gib == pytest.approx(memory.total_gib)


def test_the_plan_shows_each_cards_share_and_what_was_rejected():
    text = explain(plan_fleet(service(), {"h": hardware(RTX_4090, RTX_3090)}), whole=True)
    text = " ".join(text.split())
    assert "layers over 2 GPUs" in text and "--tensor-split 22.5,22.6" in text
    assert "GPU 0 (NVIDIA GeForce RTX 4090) holds 10.4 GiB of weights" in text
    assert "rejected: the model does not fit one NVIDIA GeForce RTX 4090" in text
    assert "sampler" not in text


def test_equal_cards_are_taken_as_few_as_hold_it():
    plan = planned(*[RTX_3090] * 5)
    assert [one.gpus for one in plan.replicas] == [(0, 1), (2, 3)]
    assert plan.spare_gpus == (4,)


def test_cards_left_over_serve_together():
    """Each large card holds the model alone, the small ones do so together."""
    plan = planned(LARGE, SMALL, RTX_3090)
    assert [one.gpus for one in plan.replicas] == [(0,), (1, 2)]


def test_a_model_too_large_for_all_cards_says_what_would_do():
    plan = planned(RTX_4090, RTX_3090, name="Llama-3.1-70B-Instruct")
    assert not plan.replicas
    assert any(text.startswith("GPUs 0, 1 together do not hold it") for text in plan.problems)
    assert any('"8x NVIDIA GeForce RTX 3090"' in text for text in plan.remedies)
    assert "129.5 GiB of weights, 10.0 of KV cache" in plan.rejected[0]


def test_fewer_requests_and_a_smaller_cache_are_remedies():
    plan = planned(RTX_3090, name="Llama-3.1-8B-Instruct", max_model_len=20000)
    assert any(text.startswith('"min_concurrency": ') for text in plan.remedies)
    assert '"kv_cache_dtype": "q8_0",' in plan.remedies
    smaller = {"cache-type-k": "q8_0", "cache-type-v": "q8_0"}
    plan = planned(RTX_3090, name="Llama-3.1-8B-Instruct", max_model_len=20000, arguments=smaller)
    assert len(plan.replicas) == 1


def test_one_endpoint_lies_over_mixed_cards_too():
    plan = planned(RTX_4090, RTX_3090, SMALL, SMALL, single_endpoint=True)
    assert [one.gpus for one in plan.replicas] == [(0, 1)]


def test_a_share_of_the_memory_is_kept_where_it_is_said():
    alone = planned(RTX_3090, name="Llama-3.1-8B-Instruct", max_model_len=14848)
    assert alone.replicas
    less = planned(
        RTX_3090, name="Llama-3.1-8B-Instruct", max_model_len=14848, gpu_memory_utilization=0.85
    )
    assert not less.replicas


def test_layers_that_take_turns_weigh_less_than_cards_of_their_own():
    """Both cards of a replica read as much a second as the mean of them, not as their sum."""
    hosts = {"a": hardware(LARGE), "b": hardware(RTX_4090, RTX_3090)}
    plan = plan_fleet(service(), hosts)
    weights = {one.host: one.weight for one in plan.replicas}
    # 864 GB/s against 1008 and 936.
    assert weights == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("message", "model", "kind"),
    [
        (None, "catalog", "vllm"),
        ("auto", "catalog", "vllm"),
        ("vllm", "catalog", "vllm"),
        (None, "gguf", "llama_cpp"),
        ("auto", "gguf", "llama_cpp"),
        ("llama_cpp", "gguf", "llama_cpp"),
        ("vllm", "gguf", "vllm"),
    ],
)
def test_the_engine_goes_by_the_models_files(message: str | None, model: str, kind: str):
    own: dict[str, Any] = {"engine": message} if message else {}
    if model == "catalog":
        own |= {"model": "Qwen/Qwen3-8B", "weights": "/srv/qwen"}
    declared = service(**own)
    assert declared.kind == kind
    host = plan_fleet(declared, {"h": hardware(LARGE)}).hosts[0]
    assert {one.engine for one in host.replicas} == {kind}
    assert host.reasons[0].endswith("files" if model == "catalog" else "a GGUF file") is (
        message == "auto"
    )


def test_other_files_are_refused_with_what_to_do():
    declared = service(model="Qwen/Qwen3-8B", engine="llama_cpp")
    plan = plan_host(declared, "h", hardware(LARGE))
    assert not plan.replicas
    assert "python -m roles.models read FILE.gguf" in plan.remedies[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"weights": "org/name"}, "no GGUF file on the hosts"),
        ({"arguments": {"max-num-seqs": 4, "ctx-size": 4}}, "min_concurrency"),
        ({"engine": "tgi"}, "engine"),
        ({"kv_cache_memory_bytes": 2**30}, "set these instead"),
        ({"max_model_len": 200_000}, "set at most 163840"),
        (
            {"arguments": {"max-num-seqs": 4}},
            "max-num-seqs is an option of vLLM, and llama.cpp has none",
        ),
        (
            {"model": "Qwen/Qwen3-8B", "arguments": {"threads-http": 4}},
            "threads-http is an option of llama.cpp, and vLLM has none",
        ),
    ],
)
def test_settings_are_checked_by_the_services_engine(more: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        service(**more)


def test_a_saved_plan_says_the_engine_and_the_split():
    plan = plan_fleet(service(), {"h": hardware(RTX_4090, RTX_3090)})
    text = saved([plan])
    assert "tensor_split: [22.5, 22.6]" in text and "engine: llama_cpp" in text
    catalog = service(model="Qwen/Qwen3-8B", weights="/srv/qwen", engine="vllm")
    plain = saved([plan_fleet(catalog, {"h": hardware(LARGE)})])
    assert "engine: vllm" in plain


def test_no_cluster_is_planned_of_an_engine_of_one_host():
    hosts = {"a": hardware(SMALL), "b": hardware(SMALL)}
    plan = plan_fleet(service(), hosts)
    assert plan.clusters == ()
    assert plan.cluster_problems == ("llama.cpp serves on one host alone",)


def test_each_engine_plans_by_its_kind():
    for kind, one in ENGINES.items():
        assert (engine(kind), one.kind) == (one, kind)
        # Every part of a sum that is shown is one, and together they are the whole.
        assert {part for part, _ in one.memory_parts} <= set(MemorySum.__dataclass_fields__)
    with pytest.raises(ValueError, match="set one of vllm, llama_cpp, sglang, ollama"):
        engine("tgi")


def test_parts_of_every_card_add_up_to_its_memory():
    declared = service()
    own = engine("llama_cpp")
    cards = tuple(map(gpu_memory, hardware(RTX_4090, SMALL).gpus))
    shape = own.placed(declared.model, cards, Shape(1, 2), declared.engine_params)
    for card in own.memories(declared.model, cards, shape, declared.engine_params):
        parts = sum(getattr(card, part) for part, _ in own.memory_parts)
        assert parts == pytest.approx(card.total_gib)


def test_an_architecture_that_nobody_knows_is_planned_by_its_tensors():
    known = gguf_model("Llama-3.1-8B-Instruct")
    unknown = replace(known, warnings=("of an unknown kind",), exact=False, margin=0.05)
    plans = [plan_host(service(model=model), "h", hardware(LARGE)) for model in (known, unknown)]
    assert plans[0].replicas == plans[1].replicas
    assert plans[1].warnings == ()


RADEON, RADEON_PRO = "AMD Radeon RX 7900 XTX", "AMD Radeon PRO W7900"


def test_cards_of_two_vendors_share_no_replica():
    """One build of llama.cpp is for CUDA or for ROCm."""
    plan = planned(RTX_4090, RADEON, RTX_3090)
    assert [one.gpus for one in plan.replicas] == [(0, 2)]
    assert planned(RTX_4090, RADEON).replicas == ()


def test_each_vendors_cards_hold_the_model_together():
    plan = planned(RTX_4090, RADEON, RTX_3090, "AMD Radeon RX 7900 XT")
    assert {one.gpus for one in plan.replicas} == {(0, 2), (1, 3)}
