"""Bytes of weights: parameters that are known, what real start-ups logged, and laws."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.models import parse_config, pipeline_layers, weights_per_gpu
from roles.models.weights import allocated, checkpoint_bytes
from tests.unit.models.published import published, read

GIB, MIB = 2**30, 2**20


@pytest.mark.parametrize(
    ("name", "expected"),
    # total_size of published indexes, or parameters that are published, at two bytes.
    [
        ("Llama-3.1-8B-Instruct", 16_060_522_496),
        ("Llama-3.1-70B-Instruct", 141_107_412_992),
        ("Qwen2.5-1.5B-Instruct", 3_087_428_608),
        ("Qwen2.5-7B-Instruct", 15_231_233_024),
        ("Qwen2.5-32B-Instruct", 65_527_752_704),
        ("Qwen3-4B", 8_044_936_192),
        ("Qwen3-14B", 29_536_614_400),
        ("Qwen3-32B", 65_524_246_528),
        ("Qwen3-30B-A3B", 61_064_245_248),
        ("Mistral-Nemo-Instruct-2407", 24_495_564_800),
        ("Mixtral-8x7B-v0.1", 93_405_585_408),
        ("phi-4", 29_319_014_400),
        ("phi-2", 5_559_367_680),
        ("granite-3.3-8b-instruct", 2 * 8_170_864_640),
        # Experts in MXFP4, the rest in bfloat16.
        ("gpt-oss-20b", 13_761_264_768),
    ],
)
def test_the_shapes_give_the_checkpoints_bytes(name: str, expected: int):
    assert checkpoint_bytes(published(name)) == pytest.approx(expected, rel=1e-5)


def test_a_multimodal_checkpoint_is_near_its_shapes():
    model = published("Mistral-Small-3.2-24B-Instruct-2506")
    assert checkpoint_bytes(model) == pytest.approx(48_022_722_560, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "shape", "gib"),
    # What vLLM logged as the weights of one GPU.
    [
        ("Llama-3.1-70B-Instruct", {}, (8, 1), 16.4605),
        ("Qwen2.5-7B-Instruct", {}, (1, 1), 14.2487),
        ("Qwen2.5-7B-Instruct", {"dtype": "float16"}, (4, 1), 3.5546),
        ("phi-4", {}, (1, 1), 27.39),
        ("gemma-3-4b-it", {}, (1, 1), 8.58),
        ("DeepSeek-V3", {}, (16, 1), 40.3172),
        ("Llama-3.1-8B-Instruct", {}, (1, 2), 7.51),
        ("Llama-3.1-8B-Instruct", {}, (1, 4), 4.26),
        ("Llama-3.1-8B-Instruct", {"quantization": "int8"}, (1, 1), 8.49),
        ("Llama-3.1-70B-Instruct", {"quantization": "fp8-dynamic"}, (2, 1), 33.88),
        ("Qwen3-Next-80B-A3B-Instruct", {}, (2, 1), 74.2812),
        ("Mixtral-8x7B-v0.1", {}, (4, 1), 21.76),
        ("gpt-oss-120b", {}, (1, 1), 65.9651),
        ("Mistral-Small-3.2-24B-Instruct-2506", {}, (4, 1), 11.86),
    ],
)
def test_as_vllm_logged_it(name: str, options: dict[str, Any], shape: tuple[int, int], gib: float):
    assert weights_per_gpu(published(name, **options), *shape) / GIB == pytest.approx(gib, rel=2e-3)


def test_experts_over_all_gpus_of_data_parallel():
    # DeepSeek-V3 worked through vLLM's rules: TP8 79.53; DP8 with experts over all 8: 95.82.
    model = published("DeepSeek-V3")
    assert weights_per_gpu(model, 8) / GIB == pytest.approx(79.53, rel=3e-3)
    spread = weights_per_gpu(model, 1, expert_parallel=True, data_parallel_size=8)
    assert spread / GIB == pytest.approx(95.82, rel=3e-3)
    assert weights_per_gpu(published("Qwen3-30B-A3B"), 4, expert_parallel=True) == weights_per_gpu(
        published("Qwen3-30B-A3B"), 4
    )


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        (62, 4, (15, 16, 16, 15)),
        (61, 2, (31, 30)),
        (80, 3, (27, 27, 26)),
        (61, 8, (7, 7, 8, 8, 8, 8, 8, 7)),
        (61, 4, (15, 15, 16, 15)),
        (8, 8, (1,) * 8),
    ],
)
def test_layers_of_stages(layers: int, stages: int, expected: tuple[int, ...]):
    assert pipeline_layers(layers, stages) == expected


@pytest.mark.parametrize("stages", [0, 9, -1])
def test_stages_that_cannot_be(stages: int):
    with pytest.raises(ValueError, match="use at most 8"):
        pipeline_layers(8, stages)


@pytest.mark.parametrize(
    ("size", "taken"),
    [
        (1, 512),
        (9 * MIB, 9 * MIB),
        # Half a MiB of a segment is left over and lost; more than one is used otherwise.
        (int(31.5 * MIB), 32 * MIB),
        (int(24.5 * MIB), int(24.5 * MIB)),
        (75 * MIB, 76 * MIB),
        (48 * MIB, 48 * MIB),
    ],
)
def test_what_the_allocator_takes(size: int, taken: int):
    assert allocated(size) == taken


def test_an_unknown_kind_is_planned_from_its_bytes_with_a_margin():
    config = read("Llama-3.1-8B-Instruct") | {"model_type": "novel", "architectures": ["Novel"]}
    model = parse_config(config, model_id="x/novel", weights_bytes=20_000_000_000)
    assert not model.exact and model.margin == 0.05
    assert "x/novel is of an unknown kind (novel)" in model.warnings[0]
    assert weights_per_gpu(model, 1) == pytest.approx(20_000_000_000, rel=3e-3)
    # Nobody is asked for bytes that are known.
    assert "weight bytes" not in model.warnings[0]
    (unsure,) = parse_config(config, model_id="x/novel").warnings
    assert "give its exact weight bytes" in unsure


def test_bytes_of_an_unquantised_checkpoint_that_the_engine_quantises():
    # --quantization fp8 on a bfloat16 checkpoint; the bytes are the checkpoint's.
    config = read("Llama-3.1-8B-Instruct")
    printed = parse_config(config, quantization="fp8", weights_bytes=16_060_522_496)
    unsaid = parse_config(config, quantization="fp8")
    assert weights_per_gpu(printed, 1) == weights_per_gpu(unsaid, 1)
    assert weights_per_gpu(printed, 1) / GIB == pytest.approx(8.46, abs=0.05)


names = st.sampled_from(["Llama-3.1-8B-Instruct", "Qwen3-30B-A3B", "DeepSeek-V3", "gemma-2-2b-it"])


@given(names, st.sampled_from([1, 2, 4]), st.integers(1, 8))
def test_stages_together_hold_the_model(name: str, tensor: int, stages: int):
    model = published(name)
    parts = [weights_per_gpu(model, tensor, stages, stage) for stage in range(stages)]
    whole = weights_per_gpu(model, tensor)
    assert max(parts) == weights_per_gpu(model, tensor, stages)
    assert max(parts) <= whole
    # Each stage has its own rotary table, and the last a copy of a tied embedding.
    assert sum(parts) >= whole


@given(names, st.sampled_from([1, 2, 4, 8]))
def test_more_gpus_never_hold_more_each(name: str, tensor: int):
    model = published(name)
    assert weights_per_gpu(model, 2 * tensor) < weights_per_gpu(model, tensor)
    assert weights_per_gpu(model, tensor) * tensor >= 0.999 * checkpoint_bytes(model)


def test_mxfp4_experts_are_as_large_as_their_kernels_layout():
    model = published("gpt-oss-120b")
    sizes = {
        padding: weights_per_gpu(model, 1, mxfp4_padding=padding) / GIB
        for padding in ("none", "triton", "marlin")
    }
    # Logs: vLLM 0.14.1 on an H100, and one without Triton's kernels.
    assert sizes["triton"] == pytest.approx(64.38, rel=5e-3)
    assert sizes["marlin"] == pytest.approx(65.9651, rel=2e-3)
    small = weights_per_gpu(published("gpt-oss-20b"), 1, mxfp4_padding="none") / GIB
    # A log of the first release on an RTX 3090.
    assert small == pytest.approx(12.8848, rel=3e-3)
