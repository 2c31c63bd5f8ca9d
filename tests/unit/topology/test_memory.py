"""The memory sum: each part against figures worked out by hand or published."""

from typing import Any

import pytest

from roles.hardware import Gpu
from roles.models import find
from roles.topology import ServiceSettings, Shape
from roles.topology.memory import (
    GIB,
    Asked,
    batch,
    batch_defaults,
    graphs_gib,
    kv_bytes_per_token,
    memory_sum,
    weight_bytes,
)

LLAMA_8B = find("meta-llama/Llama-3.1-8B-Instruct")
LLAMA_70B = find("meta-llama/Llama-3.1-70B-Instruct")
QWEN_14B = find("Qwen/Qwen2.5-14B-Instruct")
L40S = Gpu(0, "NVIDIA L40S", 46068)
H100 = Gpu(0, "NVIDIA H100 80GB HBM3", 81559)
B200 = Gpu(0, "NVIDIA B200", 183359)


@pytest.mark.parametrize(
    ("name", "memory_mib", "defaults"),
    [
        ("NVIDIA B200", 183359, (16384, 1024)),
        ("NVIDIA H100 80GB HBM3", 81559, (8192, 1024)),
        ("NVIDIA A100-SXM4-80GB", 81920, (2048, 256)),
        ("NVIDIA GB10", 122570, (2048, 256)),
        ("NVIDIA GB100", 122570, (8192, 1024)),
        ("NVIDIA L40S", 46068, (2048, 256)),
    ],
)
def test_batch_defaults(name: str, memory_mib: int, defaults: tuple[int, int]):
    assert batch_defaults(Gpu(0, name, memory_mib)) == defaults


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Asked(), (2048, 256)),
        (Asked(requests=8), (2048, 8)),
        (Asked(step_tokens=128), (128, 128)),
        (Asked(step_tokens=4096, requests=512), (4096, 512)),
    ],
)
def test_batch_as_asked(asked: Asked, expected: tuple[int, int]):
    assert batch(L40S, asked) == expected


@pytest.mark.parametrize(
    ("name", "asked", "requests", "gib"),
    [
        ("NVIDIA L40S", Asked(), 256, 0.6),
        ("NVIDIA H100 80GB HBM3", Asked(), 1024, 1.0),
        ("NVIDIA B200", Asked(), 1024, 2.0),
        ("NVIDIA GB200", Asked(), 1024, 2.0),
        ("NVIDIA B300 SXM6 AC", Asked(), 1024, 2.0),
        ("NVIDIA GB300", Asked(), 1024, 2.0),
        ("NVIDIA GB300", Asked(eager=True), 1024, 0.0),
        ("NVIDIA L40S", Asked(eager=True), 256, 0.0),
    ],
)
def test_graphs(name: str, asked: Asked, requests: int, gib: float):
    assert graphs_gib(Gpu(0, name, 100_000), asked, requests) == gib


@pytest.mark.parametrize(
    ("model", "shape", "element_bytes", "expected"),
    [
        (LLAMA_8B, Shape(1), None, 131072),
        (QWEN_14B, Shape(1), None, 196608),
        (LLAMA_8B, Shape(1), 1, 65536),
        (LLAMA_8B, Shape(8), None, 16384),
        # The eight KV heads are copied over sixteen GPUs.
        (LLAMA_8B, Shape(16), None, 16384),
        # 32 layers in three stages: eleven on the fullest.
        (LLAMA_8B, Shape(1, 3), None, 131072 * 11 / 32),
    ],
)
def test_kv_bytes_per_token(model: Any, shape: Shape, element_bytes: float | None, expected: float):
    assert kv_bytes_per_token(model, shape, element_bytes) == expected


@pytest.mark.parametrize(
    ("model", "shape", "gib"),
    [
        # vLLM's own figures for 8B and for 70B at TP2, TP4 and TP8.
        (LLAMA_8B, Shape(1), 14.96),
        (LLAMA_70B, Shape(2), 65.71),
        (LLAMA_70B, Shape(4), 32.86),
        (LLAMA_70B, Shape(8), 16.43),
        # 40 of 80 layers, and one of two tables of 1.96 GiB.
        (LLAMA_70B, Shape(1, 2), 66.69),
        # 12 of 80 layers.
        (LLAMA_70B, Shape(1, 7), 21.38),
        # Half of the KV heads on each GPU are copies: 80 x 2 x 0.5 x 128 x 8192 x 2 bytes.
        (LLAMA_70B, Shape(16), 8.37),
    ],
)
def test_weights_of_the_fullest_gpu(model: Any, shape: Shape, gib: float):
    assert weight_bytes(model, shape) / GIB == pytest.approx(gib, abs=0.01)


@pytest.mark.parametrize("pp", [2, 3, 4, 7, 8])
def test_a_stage_holds_its_layers_and_one_table(pp: int):
    table = LLAMA_8B.padded_vocab_size * LLAMA_8B.hidden_size * 2
    layer = (LLAMA_8B.weight_bytes - 2 * table) / LLAMA_8B.layers
    real = -(-LLAMA_8B.layers // pp) * layer + table
    assert real <= weight_bytes(LLAMA_8B, Shape(1, pp)) <= real + table


@pytest.mark.parametrize(
    ("model", "gpu", "kv_gib"),
    # The estimator's own worked cases: H100 and RTX 4090.
    [(LLAMA_8B, H100, 54.7), (LLAMA_8B, Gpu(0, "NVIDIA GeForce RTX 4090", 24564), 5.3)],
)
def test_the_sum_as_worked_out(model: Any, gpu: Gpu, kv_gib: float):
    assert memory_sum(model, gpu, Shape(1), Asked()).kv_cache_gib == pytest.approx(kv_gib, abs=0.25)


@pytest.mark.parametrize(
    ("arguments", "part", "less"),
    [
        ({"max-num-seqs": 8}, "sampler_gib", True),
        ({"max-num-seqs": 1024}, "sampler_gib", False),
        ({"max-num-seqs": 8}, "activations_gib", True),
        ({"max-num-batched-tokens": 32768}, "activations_gib", False),
        ({"enforce-eager": True}, "graphs_gib", True),
        ({"kv-cache-dtype": "fp8"}, "kv_needed_gib", True),
        ({"kv-cache-dtype": "fp8_e5m2"}, "kv_needed_gib", True),
    ],
)
def test_options_enter_the_sum(arguments: dict[str, Any], part: str, less: bool):
    def part_with(arguments: dict[str, Any]) -> float:
        data = {"name": "s", "model": QWEN_14B.name, "max_model_len": 4096}
        settings = ServiceSettings.model_validate(data | {"arguments": arguments})
        return getattr(memory_sum(settings.model, L40S, Shape(1), settings.asked), part)

    assert (part_with(arguments) < part_with({})) is less
    assert part_with(arguments) != part_with({})


@pytest.mark.parametrize(
    "arguments",
    [{"enforce-eager": False}, {"kv-cache-dtype": "auto"}, {"kv-cache-dtype": "bfloat16"}],
)
def test_what_is_the_default_changes_nothing(arguments: dict[str, Any]):
    data = {"name": "s", "model": QWEN_14B.name, "max_model_len": 4096}
    said, unsaid = (
        ServiceSettings.model_validate(data | {"arguments": options}).asked
        for options in (arguments, {})
    )
    assert memory_sum(QWEN_14B, L40S, Shape(1), said) == memory_sum(
        QWEN_14B, L40S, Shape(1), unsaid
    )
