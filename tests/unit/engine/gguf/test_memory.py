"""llama-server's memory by the rules, against what llama-fit-params b11434 printed.

Files of these models' shapes in 16 bits, 4 slots of 8192 tokens. tests/benchmarks/
test_llama_memory.py asks the program itself, for more models and options.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.engine.gguf.context import Context
from roles.engine.gguf.memory import device_parts, host_part, kv_bytes
from roles.engine.gguf.split import layer_counts
from tests.gguf_models import shape

FOUR = Context(4, 8192)
MIB = 2**20
# MiB of weights, KV cache and buffers on each device, by the tensor split.
PRINTED: list[tuple[str, tuple[float, ...], list[tuple[int, int, int]]]] = [
    ("Llama-3.1-8B-Instruct", (1,), [(14315, 4096, 290)]),
    ("Llama-3.1-8B-Instruct", (3, 1), [(10400, 3200, 244), (3914, 896, 354)]),
    ("Llama-3.1-70B-Instruct", (3, 1), [(99555, 7808, 456), (33013, 2432, 426)]),
    ("Mistral-7B-v0.1", (3, 1), [(10400, 3200, 244), (3162, 896, 204)]),
    ("Mixtral-8x7B-v0.1", (2, 1, 1), [(47058, 2176, 328), (22145, 1024, 288), (19627, 896, 288)]),
    ("Qwen2-0.5B", (1,), [(942, 384, 311)]),
    ("Qwen2.5-14B-Instruct", (3, 1), [(19427, 4736, 273), (7260, 1408, 419)]),
    ("Qwen3-8B", (2, 1, 1), [(6992, 2432, 232), (3312, 1152, 192), (4131, 1024, 400)]),
    ("Qwen3-30B-A3B", (3, 1), [(43993, 2368, 168), (13672, 704, 364)]),
    ("gemma-2-27b-it", (3, 1), [(38882, 7200, 409), (13050, 2000, 631)]),
    ("gemma-3-12b-it", (3, 1), [(15819, 3024, 248), (6623, 944, 617)]),
    ("phi-4", (3, 1), [(20151, 4960, 287), (6830, 1440, 338)]),
    ("gpt-oss-20b", (3, 1), [(8654, 636, 194), (3382, 204, 484)]),
]


@pytest.mark.parametrize(("name", "split", "printed"), PRINTED)
def test_each_device_holds_what_llama_cpp_says(
    name: str, split: tuple[float, ...], printed: list[tuple[int, int, int]]
):
    model = shape(name)
    parts = device_parts(model, FOUR, layer_counts(split, len(model.every_layer)))
    for part, (weights, kv, buffers) in zip(parts, printed, strict=True):
        # Weights and KV cache to the MiB that is printed.
        assert (part.weights // MIB, part.kv // MIB) == (weights, kv)
        assert part.total / MIB == pytest.approx(weights + kv + buffers, rel=0.02)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("Llama-3.1-8B-Instruct", (15317, 4096, 298)),
        ("Qwen2-0.5B", (942, 384, 315)),
        ("gemma-3-12b-it", (22442, 3968, 559)),
        ("gpt-oss-20b", (13141, 840, 429)),
    ],
)
def test_without_a_device_all_is_on_the_host(name: str, printed: tuple[int, int, int]):
    part = host_part(shape(name), FOUR, 0)
    assert (part.weights // MIB, part.kv // MIB) == printed[:2]
    assert part.compute / MIB == pytest.approx(printed[2], rel=0.02)


def test_embeddings_stay_on_the_host():
    model = shape("Llama-3.1-8B-Instruct")
    assert host_part(model, FOUR, 1).weights // MIB == 1002
    tied = shape("Qwen2-0.5B")
    (part,) = device_parts(tied, FOUR, (25,))
    assert part.weights == sum(x.weights_bytes for x in tied.every_layer) + (
        tied.output_bytes + tied.embeddings_bytes
    )


@pytest.mark.parametrize(
    ("kind", "of_f16"), [("f16", 1.0), ("q8_0", 1.0625 / 2), ("q4_0", 0.5625 / 2)]
)
def test_a_quantised_cache_is_smaller_and_converted_a_layer_at_a_time(kind: str, of_f16: float):
    model = shape("Llama-3.1-8B-Instruct")
    (whole,) = device_parts(model, FOUR, (33,))
    (part,) = device_parts(model, Context(4, 8192, kind, kind), (33,))
    assert part.kv == whole.kv * of_f16
    assert part.converted == (0 if kind == "f16" else whole.kv / 32)


@pytest.mark.parametrize(
    ("slots", "length", "size"), [(3, 333, 1536), (1, 256, 256), (4, 8192, 32768), (2, 257, 1024)]
)
def test_slots_have_whole_256s_of_cells(slots: int, length: int, size: int):
    assert Context(slots, length).context_size == size


def test_windows_keep_their_own_tokens_and_those_of_a_step():
    context = Context(4, 8192)
    assert context.window_cells(1024) == 1536
    assert Context(4, 1024).window_cells(4096) == 1024
    assert Context(4, 8192, full_windows=True).window_cells(1024) == 8192


def test_unfused_attention_needs_room_for_all_scores():
    model = shape("gpt-oss-20b")
    (fused,) = device_parts(model, FOUR, (25,))
    (unfused,) = device_parts(model, Context(4, 8192, flash_attention=False), (25,))
    assert fused.compute // MIB == 424
    assert unfused.compute / MIB == pytest.approx(1084, rel=0.03)


def test_counts_must_be_those_of_the_layers():
    with pytest.raises(ValueError, match="32 layers and the output"):
        device_parts(shape("Llama-3.1-8B-Instruct"), FOUR, (16, 16))


@given(slots=st.integers(1, 64), length=st.integers(1, 40000), more=st.integers(0, 4096))
def test_more_slots_or_longer_ones_never_take_less(slots: int, length: int, more: int):
    layers = shape("gemma-3-12b-it").every_layer
    less = kv_bytes(layers, Context(slots, length))
    assert less <= kv_bytes(layers, Context(slots + 1, length))
    assert less <= kv_bytes(layers, Context(slots, length + more))
