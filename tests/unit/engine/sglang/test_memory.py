"""SGLang's own memory rules, against sums made by hand from its source."""

import pytest

from roles.engine.params import GIB, Changes, EngineParams, GpuMemory
from roles.engine.sglang.memory import (
    COLLECTIVES_GIB,
    CONTEXT_GIB,
    Defaults,
    defaults,
    memory_sum,
    prefill_graphs,
    reserve_mib,
    static_fraction,
    step,
)
from roles.engine.sglang.planning import SGLANG
from roles.hardware import declared_hardware
from roles.models import find, weights_per_gpu
from roles.plan import Shape
from roles.topology import ServiceSettings, plan_host
from roles.topology.named_gpus import named_gpu

LLAMA = find("meta-llama/Llama-3.1-8B-Instruct")
DEEPSEEK = find("deepseek-ai/DeepSeek-R1")
ONE, TP4 = Shape(1), Shape(4)


@pytest.mark.parametrize(
    ("total_mib", "tensor", "expected"),
    [
        (16376, 1, Defaults(2048, 8)),
        (16376, 4, Defaults(2048, 8)),
        (24564, 2, Defaults(4096, 48)),
        (24564, 4, Defaults(4096, 160)),
        (46068, 1, Defaults(4096, 32)),
        (46068, 4, Defaults(4096, 160)),
        (81559, 1, Defaults(8192, 256)),
        (143771, 8, Defaults(8192, 512)),
        (183359, 1, Defaults(16384, 512)),
    ],
)
def test_the_defaults_follow_from_the_memory(total_mib: int, tensor: int, expected: Defaults):
    assert defaults(total_mib, tensor) == expected


@pytest.mark.parametrize(("tokens", "sizes"), [(2048, 42), (4096, 50), (8192, 58), (16384, 74)])
def test_how_many_prefill_steps_are_captured(tokens: int, sizes: int):
    # 8 to 32, 14 to 256, 8 to 512, 8 to 1024, 12 to 4096, and each 512th beyond.
    assert prefill_graphs(tokens) == sizes


@pytest.mark.parametrize(
    ("total_mib", "shape", "params", "reserve", "share"),
    [
        # 512 + 1.5 x 4096 + 128 + 2 x 48 + 8 x 50
        (24564, ONE, {}, 7280, 0.704),
        # 512 + 1.5 x 4096 + 4 x 128 + 2 x 160 + 8 x 50
        (24564, TP4, {}, 7888, 0.679),
        # Without graphs for prefill steps where there are stages.
        (24564, Shape(1, 2), {}, 512 + 6144 + 256 + 96, 0.715),
        (24564, ONE, {"eager": True}, 512 + 6144 + 128, 0.724),
        (24564, ONE, {"max_num_seqs": 8}, 512 + 6144 + 128 + 16 + 400, 0.707),
        (24564, ONE, {"max_num_batched_tokens": 512}, 512 + 3072 + 128 + 96 + 8 * 30, 0.835),
        # 512 + 1.5 x 8192 + 128 + 2 x 256 + 8 x 58
        (81559, ONE, {}, 13904, 0.83),
        # Above 60 GiB at least 10 GiB.
        (81559, ONE, {"max_num_batched_tokens": 2048, "max_num_seqs": 8}, 10240, 0.874),
        (183359, ONE, {}, 512 + 24576 + 128 + 1024 + 8 * 74, 0.854),
    ],
)
def test_what_is_left_for_steps(
    total_mib: int, shape: Shape, params: dict, reserve: float, share: float
):
    own = EngineParams(**params)
    assert reserve_mib(LLAMA, total_mib, shape, own) == reserve
    assert static_fraction(LLAMA, total_mib, shape, own) == share


def test_latent_attention_reserves_more_for_its_graphs():
    plain = 512 + 1.5 * 8192 + 8 * 128 + 2 * 512
    assert reserve_mib(DEEPSEEK, 143771, Shape(8), EngineParams()) == plain + 1536


def test_a_graph_is_never_larger_than_the_requests_unless_the_service_says_so():
    assert step(81559, 1, EngineParams(max_num_seqs=32)) == Defaults(8192, 32)
    own = EngineParams(max_num_seqs=32, options=(("cuda-graph-max-bs-decode", 64),))
    assert step(81559, 1, own) == Defaults(8192, 64)


@pytest.mark.parametrize(("shape", "collectives"), [(ONE, 0.0), (Shape(2), COLLECTIVES_GIB)])
def test_the_cache_is_what_the_share_leaves_beside_the_weights(shape: Shape, collectives: float):
    gpu = named_gpu("H100", None)
    params = EngineParams(max_model_len=8192)
    found = memory_sum(LLAMA, gpu, shape, params)
    free = gpu.usable_mib / 1024 - CONTEXT_GIB - collectives
    share = static_fraction(LLAMA, gpu.total_mib, shape, params)
    weights = weights_per_gpu(LLAMA, shape.tensor_parallel, 1, 0) / GIB
    # KV = free after the weights - (1 - share) x free before.
    assert found.kv_cache_gib == pytest.approx((free - weights) - (1 - share) * free)
    # 32 layers x 8 heads x 128 x 2 x 2 bytes a token, over the GPUs.
    tokens = found.kv_cache_gib * GIB / (131072 / shape.tensor_parallel)
    assert found.kv_tokens == pytest.approx(tokens, rel=0.01)
    assert found.starts and found.promised_kv_gib < found.kv_cache_gib


def test_what_others_use_at_start_is_not_shared_out():
    gpu = named_gpu("H100", None)
    free = memory_sum(LLAMA, gpu, ONE, EngineParams(max_model_len=8192))
    used = memory_sum(LLAMA, gpu, ONE, EngineParams(max_model_len=8192, other_used_gib=10))
    assert free.kv_cache_gib - used.kv_cache_gib == pytest.approx(8.3)


@pytest.mark.parametrize(
    ("gpu", "params", "words"),
    [
        ("RTX 4080", {"max_model_len": 8192}, "of weights do not fit"),
        ("RTX 4090", {"max_model_len": 131072}, "for the KV cache of one request"),
        ("H100", {"max_model_len": 200_000}, "more than the model's 131072"),
    ],
)
def test_why_it_does_not_start(gpu: str, params: dict, words: str):
    found = memory_sum(LLAMA, named_gpu(gpu, None), ONE, EngineParams(**params))
    assert not found.starts and words in found.reason


def test_each_change_of_the_plan_leaves_more_memory():
    gpu: GpuMemory = named_gpu("RTX 4090", None)
    params = EngineParams(max_model_len=4096)
    changes = SGLANG.tighter(params)
    caches = [memory_sum(LLAMA, gpu, ONE, one.applied(params)).kv_cache_gib for one in changes]
    before = memory_sum(LLAMA, gpu, ONE, params).kv_cache_gib
    assert before < caches[0] and caches == sorted(caches) and len(caches) == 3
    # A share that the service sets stays.
    assert SGLANG.tighter(EngineParams(utilization=0.8)) == ()


def test_a_plan_and_its_remedies_name_sglangs_own_options():
    given = {"name": "chat", "model": "Qwen/Qwen2.5-14B-Instruct", "engine": "sglang"}
    service = ServiceSettings.model_validate(given | {"max_model_len": 4096, "min_concurrency": 2})
    plan = plan_host(service, "gpu1", declared_hardware("2x NVIDIA A10G", None))
    assert "chunked-prefill-size 2048" in " ".join(plan.reasons)
    told = Changes(max_num_seqs=8, enforce_eager=True).words(SGLANG.change_names)
    assert told == "max-running-requests 8 and disable-cuda-graph"
