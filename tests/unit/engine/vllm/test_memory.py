"""The memory sum: its parts against figures worked out by hand or logged, and laws."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.engine.params import EngineParams, GpuMemory, gpu_memory
from roles.engine.vllm.engine_versions import LATEST, batch_defaults, parse_version, rules
from roles.engine.vllm.memory import batch, memory_sum
from roles.engine.vllm.transients import Step, forward_bytes, graph_sizes, sampler_bytes
from roles.hardware import Gpu
from roles.models import find
from roles.plan import MemorySum, Shape
from roles.topology.named_gpus import named_gpu
from tests.unit.models.published import published

GIB = 2**30
LLAMA_8B = find("meta-llama/Llama-3.1-8B-Instruct")
QWEN_30B = find("Qwen/Qwen3-30B-A3B")
H100 = GpuMemory("NVIDIA H100 80GB HBM3", 81559, 79.19 * 1024, 9.0, True)
L40S = Gpu(0, "NVIDIA L40S", 46068)
OLD = EngineParams(utilization=0.95, max_model_len=8192, engine_version="0.19.0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.10.2", (0, 10, 2)),
        ("v0.6.4.post1", (0, 6, 4)),
        ("0.15.2rc1.dev93+g11a4c9d30", (0, 15, 2)),
        ("0.21", (0, 21, 0)),
        # A clone without tags: no word about its age.
        ("0.1.dev3896+ga491d6f.d20250103", LATEST),
        ("main@2a4dbe24", LATEST),
        (None, LATEST),
    ],
)
def test_versions(text: str | None, expected: tuple[int, ...]):
    assert parse_version(text) == expected


@pytest.mark.parametrize(
    ("name", "memory_mib", "version", "length", "expected"),
    [
        ("NVIDIA B200", 183359, LATEST, 4096, (16384, 1024)),
        ("NVIDIA H100 80GB HBM3", 81559, LATEST, 4096, (8192, 1024)),
        ("NVIDIA A100-SXM4-80GB", 81920, LATEST, 4096, (2048, 256)),
        ("NVIDIA GB10", 122570, LATEST, 4096, (2048, 256)),
        ("NVIDIA GB100", 122570, LATEST, 4096, (8192, 1024)),
        ("NVIDIA L40S", 46068, LATEST, 4096, (2048, 256)),
        # Large steps by name, by memory, then by memory without A100.
        ("NVIDIA H100 80GB HBM3", 81559, (0, 8, 4), 4096, (8192, 1024)),
        ("AMD Instinct MI300X", 196592, (0, 8, 4), 4096, (2048, 256)),
        ("AMD Instinct MI300X", 196592, (0, 8, 5), 4096, (8192, 1024)),
        ("NVIDIA A100-SXM4-80GB", 81920, (0, 8, 5), 4096, (8192, 1024)),
        ("NVIDIA A100-SXM4-80GB", 81920, (0, 9, 0), 4096, (2048, 256)),
        ("NVIDIA A10G", 23028, (0, 8, 4), 4096, (2048, 256)),
        # V1's first releases, and V0 with whole prompts and with cut ones.
        ("NVIDIA L4", 23034, (0, 8, 3), 4096, (2048, 1024)),
        ("NVIDIA L4", 23034, (0, 6, 3), 20000, (20000, 256)),
        ("NVIDIA L4", 23034, (0, 6, 3), 65536, (512, 256)),
    ],
)
def test_batch_defaults(
    name: str, memory_mib: int, version: tuple[int, ...], length: int, expected: tuple[int, int]
):
    assert batch_defaults(name, memory_mib, version, length) == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (EngineParams(), (2048, 256)),
        (EngineParams(max_num_seqs=8), (2048, 8)),
        (EngineParams(max_num_batched_tokens=128), (128, 128)),
        (EngineParams(max_num_batched_tokens=4096, max_num_seqs=512), (4096, 512)),
    ],
)
def test_batch_as_asked(params: EngineParams, expected: tuple[int, int]):
    assert batch(gpu_memory(L40S), params, 4096) == expected


@pytest.mark.parametrize(
    ("name", "version", "step", "gib"),
    # "PyTorch activation peak" of logs.
    [
        # 1024 requests x 128256 logits, sorted (0.15) and not (0.19).
        ("Llama-3.1-8B-Instruct", "0.19.0", Step(8192, 1024), 1.89),
        ("Qwen3-14B", "0.15.0", Step(8192, 1024), 5.64),
        ("Qwen3-14B", "0.19.0", Step(8192, 1024), 2.23),
        # Whole prompts of 32768 tokens: the forward pass is more than the sampler.
        ("Qwen2.5-1.5B-Instruct", "0.7.3", Step(32768, 256), 2.02),
        ("CodeLlama-7b-hf", "0.19.0", Step(8192, 1024), 0.77),
        # Buffers of experts, split over two GPUs.
        ("Mixtral-8x7B-v0.1", "0.19.0", Step(8192, 1024, tensor=2), 1.21),
        ("Qwen1.5-MoE-A2.7B", "0.19.0", Step(8192, 1024), 2.47),
        # MXFP4 experts on Hopper need none.
        ("gpt-oss-20b", "0.19.0", Step(8192, 1024, capability=9.0), 2.87),
        # The last of two stages gets two tensors from the first.
        ("Llama-3.1-8B-Instruct", "0.19.0", Step(8192, 1024, stages=2), 2.01),
    ],
)
def test_transients_as_logged(name: str, version: str, step: Step, gib: float):
    model = published(name)
    law = rules(parse_version(version))
    largest = max(forward_bytes(model, step), sampler_bytes(model, step, law)) / GIB
    assert largest == pytest.approx(gib, rel=0.03)


@pytest.mark.parametrize(
    ("requests", "largest", "count"),
    # Counted in lists of vLLM: [1, 2, 4, 8, 16 ... 248, 256, 272 ... 512], and to 1024.
    [(1024, 512, 51), (256, 512, 51), (1024, 1024, 83), (8, 512, 5), (1, 512, 2)],
)
def test_captured_sizes(requests: int, largest: int, count: int):
    assert graph_sizes(requests, largest) == count


@pytest.mark.parametrize(
    ("name", "shape", "weights", "kv_gib"),
    # Logs of vLLM 0.19 on an H100 at 0.95.
    [
        ("phi-4", Shape(1), 27.39, 46.08),
        ("Llama-3.1-8B-Instruct", Shape(4), 3.77, 67.44),
        ("Qwen1.5-MoE-A2.7B", Shape(1), 26.67, 45.83),
    ],
)
def test_the_sum_as_logged(name: str, shape: Shape, weights: float, kv_gib: float):
    memory = memory_sum(published(name), H100, shape, OLD)
    assert memory.weights_gib == pytest.approx(weights, abs=0.01)
    assert memory.kv_cache_gib == pytest.approx(kv_gib, rel=0.005)
    assert memory.starts


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"max_model_len": 131073}, "more than the model's 131072"),
        ({"other_used_gib": 10.0}, "are free at start"),
        ({"utilization": 0.2}, "missing for the KV cache of one request"),
        ({"kv_cache_memory_bytes": 70 * GIB}, "with the requested KV cache"),
        ({"kv_cache_memory_bytes": GIB // 2}, "missing for the KV cache of one request"),
        ({"measured_kv_gib": 0.5}, "missing for the KV cache of one request"),
    ],
)
def test_what_does_not_start(params: dict, reason: str):
    memory = memory_sum(
        LLAMA_8B, H100, Shape(1), replace(EngineParams(max_model_len=8192), **params)
    )
    assert not memory.starts
    assert reason in memory.reason
    assert not memory.fits


def test_expert_parallel_needs_experts():
    shape = Shape(1, expert_parallel=True)
    memory = memory_sum(LLAMA_8B, H100, shape, EngineParams(max_model_len=8192))
    assert not memory.starts and "needs a model with experts" in memory.reason


def test_weights_that_do_not_fit():
    memory = memory_sum(QWEN_30B, gpu_memory(L40S), Shape(1), EngineParams(max_model_len=8192))
    assert "GiB of weights do not fit" in memory.reason
    assert memory_sum(QWEN_30B, gpu_memory(L40S), Shape(2), EngineParams(max_model_len=8192)).starts


def test_given_kv_memory_ignores_utilization():
    given_bytes = EngineParams(max_model_len=8192, kv_cache_memory_bytes=4 * GIB)
    for utilization in (0.5, 0.92):
        params = replace(given_bytes, utilization=utilization)
        memory = memory_sum(LLAMA_8B, H100, Shape(1), params)
        assert (memory.kv_cache_gib, memory.promised_kv_gib) == (4, 4)
        assert memory.kv_tokens == 4 * GIB // 131072


def test_a_version_that_counted_all_layers_for_each_stage():
    # 48 layers x 4 heads x 128 x 2 x 2 bytes x 262144 tokens are 24 GiB, and 8 of them a stage.
    gpu = GpuMemory("NVIDIA GeForce RTX 4090", 24564, 24115, 8.9)
    model = published("Qwen3-30B-A3B-Instruct-2507", quantization="fp8")
    params = EngineParams(
        utilization=0.97, max_model_len=262144, max_num_seqs=16, measured_kv_gib=9.05
    )
    assert memory_sum(model, gpu, Shape(1, 3), params).starts
    refused = memory_sum(model, gpu, Shape(1, 3), replace(params, engine_version="0.14.0"))
    assert "24.00 GiB of KV cache of each stage" in refused.reason


def test_offloaded_weights_leave_embedding_and_head():
    # vLLM 0.7.2 logged 0.8008 GiB of weights and 14.96 GiB of KV cache, with 30 GiB offloaded.
    gpu = GpuMemory("NVIDIA L40S", 46068, 44.31 * 1024, 8.9)
    params = EngineParams(
        0.45, 100000, max_num_batched_tokens=40000, eager=True, engine_version="0.7.2"
    )
    memory = memory_sum(
        published("DeepSeek-V2-Lite"), gpu, Shape(1), replace(params, cpu_offload_gib=30)
    )
    assert memory.weights_gib == pytest.approx(0.80, abs=0.03)
    assert memory.kv_cache_gib == pytest.approx(14.96, rel=0.08)


def test_latents_before_they_were_kept():
    # 27 layers x 16 heads x 512 numbers x 2 bytes for a token, against 27 x 576 x 2.
    old, new = (
        memory_sum(
            published("DeepSeek-V2-Lite"),
            H100,
            Shape(1),
            EngineParams(max_model_len=4096, measured_kv_gib=10, engine_version=version),
        ).kv_tokens
        for version in ("0.6.3", "0.7.2")
    )
    assert old == 10 * GIB // (27 * 16 * 512 * 2) // 16 * 16
    assert new == 10 * GIB // (27 * 576 * 2) // 16 * 16


MODELS = st.sampled_from(
    [
        "meta-llama/Llama-3.1-8B-Instruct",
        "Qwen/Qwen3-30B-A3B",
        "openai/gpt-oss-20b",
        "google/gemma-3-27b-it",
        "deepseek-ai/DeepSeek-V3",
    ]
).map(find)
GPUS = st.integers(8, 300).map(
    lambda gib: GpuMemory(f"{gib} GiB", gib * 1024, gib * 1018, 9.0, True)
)
ASKED = st.builds(
    EngineParams,
    utilization=st.sampled_from([0.5, 0.8, 0.92]),
    max_model_len=st.integers(1, 8192),
    min_concurrency=st.integers(1, 64),
    max_num_seqs=st.sampled_from([None, 8, 256]),
    eager=st.booleans(),
    engine_version=st.sampled_from([None, "0.7.3", "0.10.2", "0.19.0"]),
    other_used_gib=st.sampled_from([0.0, 3.0]),
)


def parts(memory: MemorySum) -> float:
    return (
        memory.driver_gib
        + memory.headroom_gib
        + memory.weights_gib
        + memory.sampler_gib
        + memory.activations_gib
        + memory.graphs_gib
        + memory.workspace_gib
        + memory.kv_cache_gib
    )


@given(MODELS, GPUS, ASKED, st.sampled_from([Shape(1), Shape(2), Shape(1, 2), Shape(8, 3)]))
def test_the_parts_are_the_whole_and_no_promise_exceeds_them(
    model, gpu: GpuMemory, params: EngineParams, shape: Shape
):
    memory = memory_sum(model, gpu, shape, params)
    assert parts(memory) == pytest.approx(memory.total_gib)
    assert memory.promised_kv_gib <= max(0, memory.kv_cache_gib)
    assert memory.promised_concurrency <= memory.max_concurrency
    assert memory.starts == (not memory.reason)


@given(MODELS, GPUS, ASKED, st.sampled_from([1, 2, 4]))
def test_more_gpus_or_memory_never_hold_fewer_tokens(
    model, gpu: GpuMemory, params: EngineParams, tp: int
):
    # The defaults of larger cards take more memory.
    params = replace(params, max_num_seqs=256, max_num_batched_tokens=2048)
    tokens = memory_sum(model, gpu, Shape(tp), params).kv_tokens
    larger = replace(gpu, total_mib=gpu.total_mib + 8192, usable_mib=gpu.usable_mib + 8192)
    assert memory_sum(model, larger, Shape(tp), params).kv_tokens >= tokens
    if tp > 1:
        assert memory_sum(model, gpu, Shape(2 * tp), params).kv_tokens >= tokens


@given(MODELS, GPUS, ASKED, st.integers(1, 8192))
def test_longer_requests_are_never_more(model, gpu: GpuMemory, params: EngineParams, more: int):
    params = replace(params, max_num_batched_tokens=8192)
    longer = replace(params, max_model_len=(params.max_model_len or 0) + more)
    concurrency = memory_sum(model, gpu, Shape(8), params).max_concurrency
    assert memory_sum(model, gpu, Shape(8), longer).max_concurrency <= concurrency


@pytest.mark.parametrize(
    ("name", "memory_mib", "expected"),
    [
        ("NVIDIA B200", 183359, (16384, 1024)),
        ("NVIDIA H100 80GB HBM3", 81559, (16384, 1024)),
        ("NVIDIA L40S", 46068, (8192, 256)),
    ],
)
def test_batch_defaults_of_the_python_class(name: str, memory_mib: int, expected: tuple[int, int]):
    assert batch_defaults(name, memory_mib, offline=True) == expected


def test_a_default_step_follows_the_requests_that_are_set():
    few = EngineParams(max_num_seqs=4)
    assert batch(H100, few, 256) == (1024, 4)
    assert batch(H100, few, 8192) == (8192, 4)
    more = EngineParams(performance_mode="throughput")
    assert batch(H100, more, 8192) == (16384, 2048)
    assert batch(H100, replace(more, max_num_seqs=8), 8192) == (16384, 8)


@pytest.mark.parametrize(
    ("model", "card", "version", "length"),
    [
        # `vllm serve openai/gpt-oss-120b --max-model-len 32768`, measured under load.
        ("openai/gpt-oss-120b", "H100 80GB", "0.10.2", 32768),
        ("openai/gpt-oss-120b", "H100 80GB", "0.11.0", 32768),
        ("openai/gpt-oss-120b", "A100 80GB", "0.11.0", 32768),
        ("Qwen/Qwen2.5-7B-Instruct", "A10G", "0.8.4", 32768),
        ("Qwen/Qwen2.5-7B-Instruct", "A10G", None, 32768),
    ],
)
def test_starts_that_people_run(model: str, card: str, version: str | None, length: int):
    params = EngineParams(max_model_len=length, engine_version=version)
    assert memory_sum(find(model), named_gpu(card, None), Shape(1), params).starts


@pytest.mark.parametrize(
    ("version", "length"),
    [
        # "can't run on H100" at the model's whole context, and out of memory after an upgrade.
        ("0.10.2", 131072),
        ("0.14.1", 32768),
    ],
)
def test_starts_of_gpt_oss_that_failed(version: str, length: int):
    params = EngineParams(max_model_len=length, engine_version=version)
    model = find("openai/gpt-oss-120b")
    assert not memory_sum(model, named_gpu("H100 80GB", None), Shape(1), params).starts
