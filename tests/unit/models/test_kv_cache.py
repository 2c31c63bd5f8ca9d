"""KV capacity: cases worked with vLLM's own planner, published logs, and laws."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.models import kv_tokens, parse_config
from tests.unit.models.published import published, read

GIB = 2**30


@pytest.mark.parametrize(
    ("name", "gib", "options", "block_bytes", "tokens", "concurrency"),
    # Run through vLLM 0.33's own planner.
    [
        ("Llama-3.1-8B-Instruct", 50, {}, 2_097_152, 409_600, 3.12),
        ("Llama-3.1-70B-Instruct", 30, {"tp": 4}, 1_310_720, 393_216, 3.00),
        ("Llama-3.1-70B-Instruct", 30, {"tp": 4, "dtype": "fp8"}, 655_360, 786_432, 6.00),
        ("Llama-3.1-70B-Instruct", 30, {"tp": 16}, 655_360, 786_432, 6.00),
        ("Llama-3.1-70B-Instruct", 5, {"pp": 2}, 2_621_440, 32_768, 0.25),
        ("Qwen3-30B-A3B", 10, {}, 1_572_864, 109_216, 2.67),
        ("Qwen3-30B-A3B", 50, {"tp": 4}, 393_216, 2_184_528, 53.3),
        ("Qwen3-30B-A3B", 50, {"tp": 8}, 393_216, 2_184_528, 53.3),
        ("DeepSeek-V3", 30, {"tp": 8, "block": 64}, 4_497_408, 458_368, 2.80),
        ("DeepSeek-V3", 30, {"tp": 8, "block": 64, "dtype": "fp8"}, 2_248_704, 916_736, 5.60),
        ("DeepSeek-V3", 30, {"tp": 8, "block": 64, "dcp": 8}, 4_497_408, 3_666_944, 22.4),
        ("gpt-oss-120b", 30, {"tp": 2, "steps": 8192}, 294_912, 1_551_920, 11.84),
        ("gpt-oss-120b", 10, {"steps": 8192}, 589_824, 258_648, 1.97),
        ("Qwen3-Next-80B-A3B-Instruct", 30, {"tp": 4}, 3_342_336, 2_604_414, 9.94),
    ],
)
def test_as_vllm_plans_it(
    name: str,
    gib: int,
    options: dict[str, Any],
    block_bytes: int,
    tokens: int,
    concurrency: float,
):
    model = published(name)
    capacity = kv_tokens(
        model,
        gib * GIB,
        max_model_len=model.context_limit_tokens,
        tensor_parallel_size=options.get("tp", 1),
        pipeline_parallel_size=options.get("pp", 1),
        kv_cache_dtype=options.get("dtype", "auto"),
        block_size=options.get("block"),
        max_num_batched_tokens=options.get("steps", 2048),
        decode_context_parallel_size=options.get("dcp", 1),
    )
    assert capacity.bytes_per_block == block_bytes
    assert capacity.tokens == tokens
    assert capacity.max_concurrency == pytest.approx(concurrency, abs=0.051)


def test_the_published_log_of_a_hybrid_with_a_quantised_cache():
    # Qwen3.6-35B-A3B has the layers of 3.5: 10 full, 30 with a float32 state.
    capacity = kv_tokens(
        published("Qwen3.5-35B-A3B"), int(5.98 * GIB), max_model_len=131072, kv_cache_dtype="fp8"
    )
    assert (capacity.block_tokens, capacity.bytes_per_block) == (2096, 21_463_040)
    assert (capacity.num_blocks, capacity.blocks_per_request) == (299, 69)
    assert (capacity.tokens, round(capacity.max_concurrency, 2)) == (567_978, 4.33)


def test_a_sliding_window_model_pays_for_its_largest_group():
    # Gemma 3 27B: 52 windows in groups of 9 and 8, 10 full layers: a block is 10 pages of 131072.
    capacity = kv_tokens(published("gemma-3-27b-it"), 20 * GIB, max_model_len=131072)
    assert capacity.bytes_per_block == 1_310_720
    assert (capacity.tokens, round(capacity.max_concurrency, 2)) == (145_829, 1.11)
    # What one request takes, and the block that is kept free.
    assert (capacity.minimum_bytes - 1_310_720) / GIB == pytest.approx(17.98, abs=0.005)


def test_windows_in_every_second_layer():
    sizes = read("gemma-2-2b-it") | {
        "num_hidden_layers": 42,
        "num_key_value_heads": 8,
        "num_attention_heads": 16,
        "hidden_size": 3584,
    }
    capacity = kv_tokens(parse_config(sizes), 10 * GIB, max_model_len=8192)
    assert capacity.bytes_per_block == 2_752_512
    assert (capacity.tokens, round(capacity.max_concurrency, 2)) == (31_169, 3.80)


@pytest.mark.parametrize(
    ("name", "version", "gib", "options", "printed"),
    # Logs: tokens, blocks, concurrency; available memory is printed to 0.01 GiB.
    [
        ("gemma-2-27b-it", (0, 19, 0), 20.59, {"M": 8192}, (58_672, 7335, 7.16)),
        ("gemma-3-4b-it", (0, 19, 0), 62.51, {"M": 8192}, (468_144, 204_817, 57.05)),
        ("EXAONE-4.0-32B", (0, 11, 0), 10.31, {"M": 4096}, (42_224, None, 10.28)),
        (
            "Qwen3-Next-80B-A3B-Instruct",
            (0, 10, 2),
            44.59,
            {"M": 262_144, "tp": 2},
            (973_760, None, 14.77),
        ),
        ("Llama-3.1-8B-Instruct", (0, 19, 0), 58.11, {"M": 2048}, (476_016, 29_751, 232.43)),
        ("DeepSeek-V2-Lite", (0, 19, 0), 56.45, {"M": 8192, "tp": 2}, (1_948_752, None, 237.88)),
        ("gpt-oss-20b", (0, 19, 0), 58.47, {"M": 8192}, (1_277_184, None, 155.75)),
    ],
)
def test_as_older_versions_print_it(
    name: str,
    version: tuple[int, ...],
    gib: float,
    options: dict[str, int],
    printed: tuple[int, int | None, float],
):
    capacity = kv_tokens(
        published(name),
        int(gib * GIB),
        max_model_len=options["M"],
        tensor_parallel_size=options.get("tp", 1),
        engine_version=version,
    )
    tokens, blocks, concurrency = printed
    assert capacity.tokens == pytest.approx(tokens, rel=5e-4)
    assert capacity.max_concurrency == pytest.approx(concurrency, rel=1e-3)
    assert blocks is None or capacity.num_blocks == pytest.approx(blocks, rel=5e-4)


def test_layers_that_share_keep_nothing():
    # Gemma 4 E2B: 20 of 35 layers read earlier ones; vLLM printed 9,026,017 tokens on 155.04 GiB.
    capacity = kv_tokens(
        published("gemma-4-E2B-it"),
        int(155.04 * GIB),
        max_model_len=32768,
        max_num_batched_tokens=16384,
    )
    assert capacity.max_concurrency == pytest.approx(275.45, rel=1e-3)
    assert capacity.tokens == pytest.approx(9_026_017, rel=1e-3)


@pytest.mark.parametrize(
    ("dtype", "per_token"),
    [
        ("auto", 131_072),
        ("bfloat16", 131_072),
        ("fp8_e4m3", 65_536),
        ("nvfp4", 36_864),
        ("int8_per_token_head", 32 * 8 * (256 + 8)),
        ("int4_per_token_head", 32 * 8 * (128 + 8)),
    ],
)
def test_bytes_of_a_token_by_dtype(dtype: str, per_token: int):
    model = published("Llama-3.1-8B-Instruct")
    capacity = kv_tokens(model, GIB, max_model_len=4096, kv_cache_dtype=dtype)
    assert capacity.bytes_per_token == per_token


def test_a_checkpoint_that_says_how_its_cache_is_kept():
    message = kv_tokens(published("Llama-3.1-70B-Instruct-FP8"), GIB, max_model_len=4096)
    assert message.bytes_per_token == 80 * 8 * 256


def test_sparse_latents_take_their_own_layout_and_an_index():
    # GLM-5.3: 656 bytes a layer; 21 of 78 layers have an indexer of 128 FP8 numbers and a scale.
    capacity = kv_tokens(
        published("GLM-5.3"), GIB, max_model_len=4096, kv_cache_dtype="fp8", tensor_parallel_size=8
    )
    full = read("GLM-5.3")["indexer_types"].count("full")
    assert full == 21
    assert capacity.bytes_per_token == 78 * 656 + full * 132


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kv_cache_dtype": "fp9"}, "use auto, fp8"), ({"max_model_len": 0}, "at least 1")],
)
def test_what_is_asked_wrongly(options: Any, message: str):
    asked: Any = {"max_model_len": 4096} | options
    with pytest.raises(ValueError, match=message):
        kv_tokens(published("Llama-3.1-8B-Instruct"), GIB, **asked)


names = st.sampled_from(
    ["Llama-3.1-8B-Instruct", "gemma-3-27b-it", "gpt-oss-20b", "Qwen3.5-35B-A3B", "DeepSeek-V3"]
)


@given(names, st.integers(0, 2**38), st.integers(0, 2**36), st.integers(1, 200_000))
def test_more_memory_never_holds_less(name: str, memory: int, more: int, length: int):
    less = kv_tokens(published(name), memory, max_model_len=length)
    bigger = kv_tokens(published(name), memory + more, max_model_len=length)
    assert bigger.tokens >= less.tokens
    assert (less.num_blocks > less.blocks_per_request) == (memory >= less.minimum_bytes)
    assert bigger.minimum_bytes == less.minimum_bytes
