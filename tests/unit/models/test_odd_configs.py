"""What is no model's config, each refused with the key's name and what it must be."""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roles.models import model_of_file, parse_config, weights_per_gpu
from roles.models.folder import read_folder
from roles.models.settings import RecordedModel
from tests.gguf_files import header
from tests.unit.models.published import CONFIGS, read

LLAMA, MIXTRAL, QWEN_VL = "Llama-3.1-8B-Instruct", "Mixtral-8x7B-v0.1", "Qwen2.5-VL-7B-Instruct"
AWQ: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 128}
GPTQ: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 128}


def groups(**weights: Any) -> dict[str, Any]:
    one = {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", **weights}}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": one}}


# The config that is changed, the change, and what its error names: the key and what is wanted.
WRONG: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    # Counts that no model has, or that are none.
    (LLAMA, {"num_hidden_layers": 10**9}, ("num_hidden_layers", "from 1 to 512")),
    (LLAMA, {"num_hidden_layers": -32}, ("num_hidden_layers", "from 1 to 512")),
    (LLAMA, {"num_hidden_layers": "32"}, ("num_hidden_layers", "whole number")),
    (LLAMA, {"num_hidden_layers": 31.5}, ("num_hidden_layers", "whole number")),
    (LLAMA, {"num_hidden_layers": 1e300}, ("num_hidden_layers", "whole number")),
    (LLAMA, {"num_hidden_layers": float("inf")}, ("num_hidden_layers", "whole number")),
    (LLAMA, {"hidden_size": float("nan")}, ("hidden_size", "whole number")),
    (LLAMA, {"hidden_size": [4096]}, ("hidden_size", "whole number")),
    (LLAMA, {"hidden_size": 2**40}, ("hidden_size", "whole number")),
    (LLAMA, {"hidden_size": 10**5000}, ("hidden_size", "thousands of digits")),
    (LLAMA, {"intermediate_size": {}}, ("intermediate_size", "whole number")),
    (LLAMA, {"intermediate_size": ["a"]}, ("intermediate_size", "whole number")),
    (LLAMA, {"intermediate_size": False}, ("intermediate_size", "whole number")),
    (LLAMA, {"num_attention_heads": 0}, ("num_attention_heads", "from 1")),
    (LLAMA, {"num_key_value_heads": -8}, ("num_key_value_heads", "from 1")),
    (LLAMA, {"num_key_value_heads": 3}, ("num_key_value_heads", "divide")),
    (LLAMA, {"head_dim": 0}, ("head_dim", "from 1")),
    (LLAMA, {"head_dim": "128"}, ("head_dim", "whole number")),
    (LLAMA, {"vocab_size": 10**9}, ("vocab_size", "to 16777216")),
    (LLAMA, {"max_position_embeddings": 0}, ("max_position_embeddings", "from 1")),
    (LLAMA, {"max_position_embeddings": "128k"}, ("max_position_embeddings", "whole number")),
    (LLAMA, {"seq_length": -1}, ("seq_length", "from 1")),
    (LLAMA, {"sliding_window": "4096"}, ("sliding_window", "whole number")),
    # Rotary embeddings.
    (
        LLAMA,
        {"rope_scaling": {"type": "linear", "factor": -4}},
        ("rope_scaling.factor is -4; it must be above 0",),
    ),
    (LLAMA, {"rope_scaling": {"type": "dynamic", "factor": 0}}, ("rope_scaling.factor", "above 0")),
    (LLAMA, {"rope_scaling": {"type": "linear", "factor": "8"}}, ("rope_scaling.factor", "above")),
    (LLAMA, {"rope_scaling": {"type": "linear", "factor": 1e30}}, ("rope_scaling.factor", "most")),
    (LLAMA, {"rope_parameters": {"factor": float("inf")}}, ("rope_parameters.factor", "above 0")),
    (LLAMA, {"rope_scaling": "yarn"}, ("rope_scaling", "a mapping")),
    (LLAMA, {"rope_scaling": [8]}, ("rope_scaling", "a mapping")),
    (
        LLAMA,
        {"rope_parameters": {"full_attention": {"rope_theta": -1}}},
        ("rope_parameters.full_attention.rope_theta", "above 0"),
    ),
    (
        LLAMA,
        {"max_position_embeddings": 2**30, "rope_scaling": {"type": "linear", "factor": 32}},
        ("max_position_embeddings", "at most"),
    ),
    (LLAMA, {"rope_theta": 0}, ("rope_theta", "above 0")),
    (LLAMA, {"rope_theta": [10000]}, ("rope_theta", "above 0")),
    (LLAMA, {"partial_rotary_factor": 3}, ("partial_rotary_factor", "at most 1")),
    # Names and kinds.
    (LLAMA, {"architectures": "LlamaForCausalLM"}, ("architectures", "a list")),
    (LLAMA, {"architectures": [5]}, ("architectures", "a text")),
    (LLAMA, {"architectures": {"a": 1}}, ("architectures", "a list")),
    (LLAMA, {"model_type": 5}, ("model_type", "a text")),
    (LLAMA, {"model_type": ["llama"]}, ("model_type", "a text")),
    (LLAMA, {"torch_dtype": 16}, ("torch_dtype", "a text")),
    (LLAMA, {"torch_dtype": "int4"}, ("dtype", "float16")),
    (LLAMA, {"tie_word_embeddings": "no"}, ("tie_word_embeddings", "true or false")),
    (LLAMA, {"attention_bias": {}}, ("attention_bias", "true or false")),
    (LLAMA, {"text_config": "llama"}, ("text_config", "a mapping")),
    (LLAMA, {"text_config": [1]}, ("text_config", "a mapping")),
    (LLAMA, {"vision_config": 5}, ("vision_config", "a mapping")),
    (LLAMA, {"vision_config": [{}]}, ("vision_config", "a mapping")),
    (LLAMA, {"audio_config": "none"}, ("audio_config", "a mapping")),
    (LLAMA, {"layer_types": ["full_attention"] * 31 + ["telepathy"]}, ("layer_types", "one of")),
    (LLAMA, {"layer_types": ["full_attention"] * 31}, ("layer_types", "one for each")),
    (LLAMA, {"layer_types": "full_attention"}, ("layer_types", "a list")),
    (LLAMA, {"layer_types": [None] * 32}, ("layer_types", "a text")),
    (
        "NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4",
        {"layers_block_type": None, "hybrid_override_pattern": "MEX*"},
        ("hybrid_override_pattern", "letters"),
    ),
    (
        "NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4",
        {"layers_block_type": None, "hybrid_override_pattern": "M" * 2000},
        ("hybrid_override_pattern", "at most 512"),
    ),
    # Experts.
    (MIXTRAL, {"num_experts_per_tok": 200}, ("num_experts_per_tok", "at most 8")),
    (MIXTRAL, {"num_experts_per_tok": -1}, ("num_experts_per_tok", "from 0")),
    (MIXTRAL, {"num_local_experts": 10**7}, ("num_local_experts", "whole number")),
    (MIXTRAL, {"num_local_experts": "8"}, ("num_local_experts", "whole number")),
    ("DeepSeek-V3", {"first_k_dense_replace": "three"}, ("first_k_dense_replace", "whole")),
    ("DeepSeek-V3", {"kv_lora_rank": -512}, ("kv_lora_rank", "whole number")),
    ("DeepSeek-V3", {"n_shared_experts": 1.5}, ("n_shared_experts", "whole number")),
    # Encoders.
    (
        QWEN_VL,
        {"vision_config": {"depth": 10**9, "hidden_size": 1280}},
        ("vision_config.depth", "from 1 to 512"),
    ),
    (QWEN_VL, {"vision_config": {"depth": 0, "hidden_size": 1280}}, ("vision_config.depth", "1")),
    (QWEN_VL, {"vision_config": {"hidden_size": "1280"}}, ("vision_config.hidden_size", "whole")),
    (QWEN_VL, {"vision_config": {"patch_size": -14}}, ("vision_config.patch_size", "from 1")),
    (QWEN_VL, {"vision_config": {"mlp_ratio": [4]}}, ("vision_config.mlp_ratio", "above 0")),
    (
        QWEN_VL,
        {"vision_config": {"deepstack_visual_indexes": 3}},
        ("vision_config.deepstack_visual_indexes", "a list"),
    ),
    (
        QWEN_VL,
        {"vision_config": {"spatial_merge_size": 10**9}},
        ("vision_config.spatial_merge_size", "from 1"),
    ),
    (
        "gemma-3-4b-it",
        {"text_config": {"model_type": "gemma3_text", "hidden_size": -1}},
        ("text_config.hidden_size", "from 1"),
    ),
    # Quantisation.
    (LLAMA, {"quantization_config": AWQ | {"bits": 0}}, ("quantization_config.bits", "from 2")),
    (LLAMA, {"quantization_config": GPTQ | {"bits": -4}}, ("quantization_config.bits", "from 2")),
    (LLAMA, {"quantization_config": GPTQ | {"bits": "4"}}, ("quantization_config.bits", "whole")),
    (LLAMA, {"quantization_config": AWQ | {"w_bit": 64}}, ("quantization_config.w_bit", "to 8")),
    (
        LLAMA,
        {"quantization_config": AWQ | {"group_size": 0}},
        ("quantization_config.group_size", "from 1"),
    ),
    (
        LLAMA,
        {"quantization_config": GPTQ | {"group_size": -7}},
        ("quantization_config.group_size", "from 1"),
    ),
    (LLAMA, {"quantization_config": groups(num_bits=0)}, ("group_0.weights.num_bits", "from 2")),
    (
        LLAMA,
        {"quantization_config": groups(group_size=0)},
        ("weights.group_size", "-1 for whole rows"),
    ),
    (LLAMA, {"quantization_config": {"config_groups": {"a": 5}}}, ("config_groups.a", "mapping")),
    (LLAMA, {"quantization_config": {"config_groups": []}}, ("config_groups", "a mapping")),
    (LLAMA, {"quantization_config": {"quant_method": 8}}, ("quant_method", "a text")),
    (LLAMA, {"quantization_config": {"quant_method": "wizardry"}}, ("wizardry", "use one of")),
    (
        LLAMA,
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128]}},
        ("weight_block_size", "two whole numbers"),
    ),
    (
        LLAMA,
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 128]}},
        ("weight_block_size", "above 0"),
    ),
    (
        LLAMA,
        {"quantization_config": AWQ | {"modules_to_not_convert": "lm_head"}},
        ("modules_to_not_convert", "a list"),
    ),
    (LLAMA, {"quantization_config": groups() | {"ignore": ["re:(a+)+$"]}}, ("ignore", "group")),
    (LLAMA, {"quantization_config": groups() | {"ignore": ["re:.*.*.*.*x"]}}, ("ignore", "three")),
    (LLAMA, {"quantization_config": 4}, ("quantization_config", "a mapping")),
]


@pytest.mark.parametrize(("name", "change", "expected_message"), WRONG)
def test_a_wrong_key_is_named_with_what_it_must_be(
    name: str, change: dict[str, Any], expected_message: tuple[str, ...]
):
    model = {"id": "acme/mine", "config": read(name) | change}
    with pytest.raises(ValueError) as error:
        RecordedModel.model_validate(model).model()
    message = str(error.value)
    assert message.startswith("config: ") and "\n" not in message and len(message) < 400
    assert [part for part in expected_message if part not in message] == [], message


@pytest.mark.parametrize(
    "config",
    [
        {"a": 1},
        {"model_type": "llama"},
        {"text_config": {}},
        {"architectures": ["LlamaForCausalLM"]},
        {"text_config": {"a": 1}, "b": 2},
        {"vision_config": {"hidden_size": 1024}},
    ],
)
def test_a_mapping_that_is_no_config_makes_no_model(config: dict[str, Any]):
    with pytest.raises(ValueError, match=r"hidden_size is missing.*; take the config\.json"):
        parse_config(config)


@pytest.mark.parametrize("fragment", [1, 29, 10**6, 2**49])
def test_bytes_that_are_not_those_of_the_weights(fragment: int):
    with pytest.raises(ValueError, match=rf"weights_bytes is {fragment}; it must be near to"):
        parse_config(read(LLAMA), weights_bytes=fragment)


# Files beside each other in a folder: what is wrong with one, and what its error names.
FILES: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("config.json", b"", ("config.json", "is empty", "download it again")),
    ("config.json", b" \n", ("config.json", "is empty")),
    ("config.json", b"[" * 200_000, ("config.json", "nested deeper")),
    ("config.json", b'{"a":' * 100 + b"1" + b"}" * 100, ("config.json", "nested deeper")),
    ("config.json", b'{"depth": 1, "depth": 2}', ("config.json", "'depth' twice")),
    ("config.json", b'{"a": {"b": 1, "b": 1}}', ("config.json", "'b' twice")),
    ("config.json", b'{"a": 1', ("config.json", "is no JSON")),
    ("config.json", b"\xff\xfe{\x00}\x00", ("config.json", "UTF-8")),
    ("config.json", b'{"a": "\\ud800"}', ("config.json", "UTF-8")),
    ("config.json", b'{"a": ' + b"9" * 5000 + b"}", ("config.json", "digits")),
    ("config.json", b'"llama"', ("config.json", "holds str")),
    ("config.json", b"{'a': 1}", ("config.json", "is no JSON")),
    ("hf_quant_config.json", b"{", ("hf_quant_config.json", "is no JSON")),
    ("hf_quant_config.json", b"3", ("hf_quant_config.json", "holds int")),
    ("model.safetensors.index.json", b"{", ("index.json", "is no JSON")),
    ("model.safetensors.index.json", b"[" * 5000, ("index.json", "nested deeper")),
    ("model.safetensors.index.json", b'{"metadata": 5}', ("total_size", "download")),
    ("model.safetensors.index.json", b'{"metadata": {"total_size": "5"}}', ("total_size", "'5'")),
    ("model.safetensors.index.json", b'{"metadata": {"total_size": -1}}', ("total_size", "-1")),
    ("model.safetensors.index.json", b'{"metadata": {"total_size": 1e300}}', ("total_size",)),
    ("model.safetensors.index.json", b'{"metadata": {"total_size": NaN}}', ("total_size", "nan")),
    ("model.safetensors.index.json", b'{"metadata": {"total_size": true}}', ("total_size",)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected_message"), FILES)
def test_a_damaged_file_of_a_folder_is_named(
    tmp_path: Path, name: str, content: bytes, expected_message: tuple[str, ...]
):
    (tmp_path / "config.json").write_text(json.dumps(read("Qwen3-0.6B")))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_folder(tmp_path)
    assert [part for part in expected_message if part not in str(error.value)] == [], error.value


def safetensors(**tensors: Any) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


@pytest.mark.parametrize(
    ("content", "expected_message"),
    [
        (safetensors(a={"data_offsets": ["0", "8"]}), "'a' has data_offsets"),
        (safetensors(a={"data_offsets": [8, 0]}), "'a' has data_offsets"),
        (safetensors(a={"data_offsets": [-8, 0]}), "'a' has data_offsets"),
        (safetensors(a={"data_offsets": [0, 8.0]}), "'a' has data_offsets"),
        (safetensors(a={"data_offsets": [True, 8]}), "'a' has data_offsets"),
        (safetensors(a={"data_offsets": [0, 8, 16]}), "'a' has data_offsets"),
        (safetensors(a={"data_offsets": 8}), "'a' has data_offsets"),
        (safetensors(a=5), "'a' has data_offsets"),
        (safetensors(a={"data_offsets": [0, 8], "shape": [-4]}), "'a' has the shape [-4]"),
        (safetensors(a={"data_offsets": [0, 8], "shape": "4"}), "'a' has the shape '4'"),
        (safetensors(a={"data_offsets": [0, 65]}), "is cut off: tensor 'a' ends at byte 65 of 64"),
        (safetensors(**{n: {"data_offsets": [0, 40]} for n in "ab"}), "tensors overlap"),
        (struct.pack("<Q", 2**62) + bytes(8), "would be"),
        (struct.pack("<Q", 9000) + b"[" * 9000, "nested deeper"),
        (struct.pack("<Q", 100) + b"{}", "cut off within its header"),
        (struct.pack("<Q", 2) + b"{}", "names no tensor"),
        (b"", "ends within its first 8 bytes"),
    ],
)
def test_a_damaged_header_of_tensors(tmp_path: Path, content: bytes, expected_message: str):
    (tmp_path / "config.json").write_text(json.dumps(read("Qwen3-0.6B")))
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors.*download it again") as error:
        read_folder(tmp_path)
    assert expected_message in str(error.value)


GGUF: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 4096,
    "tokenizer.ggml.tokens": [f"t{i}" for i in range(100)],
}


@pytest.mark.parametrize(
    ("change", "expected_message"),
    [
        ({"llama.block_count": 10**9}, "llama.block_count"),
        ({"llama.block_count": 0}, "llama.block_count"),
        ({"llama.block_count": 1.0}, "llama.block_count"),
        ({"llama.block_count": "1"}, "llama.block_count"),
        ({"llama.embedding_length": -64}, "llama.embedding_length"),
        ({"llama.context_length": True}, "llama.context_length"),
        ({"llama.attention.head_count": -4}, "llama.attention.head_count"),
        ({"llama.attention.head_count": "four"}, "llama.attention.head_count"),
        ({"llama.expert_count": -1}, "llama.expert_count"),
        ({"general.architecture": "clip"}, "clip.block_count"),
        ({"general.architecture": "../etc"}, "../etc.block_count"),
        ({"general.architecture": 7}, "general.architecture"),
        ({"general.alignment": 0}, "general.alignment"),
        ({"split.count": -3}, "split.count"),
        ({"split.count": "two"}, "split.count"),
        ({"split.count": 4}, "name the first one"),
    ],
)
def test_a_gguf_file_of_odd_metadata(tmp_path: Path, change: dict[str, Any], expected_message: str):
    head, size = header(GGUF | change, {"blk.0.a": ((256,), "Q4_K")})
    (tmp_path / "m.gguf").write_bytes(head + bytes(size))
    with pytest.raises(ValueError, match=r"m\.gguf") as error:
        read_folder(tmp_path / "m.gguf").model()
    assert expected_message in str(error.value)


def test_a_gguf_file_of_endless_texts_is_not_read_to_its_end(tmp_path: Path):
    begin = struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 2**22)
    with (tmp_path / "m.gguf").open("wb") as file:
        file.write(b"GGUF" + begin)
        file.truncate(2**26)
    with pytest.raises(ValueError, match=r"m\.gguf is damaged: 'k' would have 4194304 texts"):
        read_folder(tmp_path / "m.gguf")


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1, 2, 3, 2**31, 10**12, 10**400]),
    st.floats(),
    st.sampled_from(["", "full", "4096", "\ud800", "re:(a*)*b", "x" * 10_000]),
    st.lists(st.one_of(st.integers(-5, 5000), st.text(max_size=3), st.none()), max_size=4),
    st.lists(st.just("full_attention"), max_size=200),
    st.dictionaries(st.sampled_from(["factor", "bits", "model_type"]), st.integers(), max_size=2),
    st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=2), max_leaves=8),
)  # fmt: skip
CONFIG_NAMES = sorted(
    path.name.removesuffix(".json").split("--")[1]
    for path in CONFIGS.glob("*.json")
    if not path.name.endswith(".hf_quant.json") and path.stat().st_size < 20_000
)


def places(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in config.items():
        yield (*path, key)
        if isinstance(value, Mapping):
            yield from places(value, (*path, key))


def with_value(config: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, *rest = path
    return {**config, key: with_value(config[key], tuple(rest), value) if rest else value}


@settings(deadline=2000)
@given(st.data())
def test_any_config_makes_a_model_or_an_error_of_ours(data: st.DataObject):
    config = read(data.draw(st.sampled_from(CONFIG_NAMES)))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places(config))))
        config = with_value(config, path, data.draw(ODD))
    try:
        model = parse_config(config, model_id="m")
    except ValueError as error:
        assert "\n" not in str(error) and "cannot be read" not in str(error)
    else:
        assert 1 <= len(model.layers) <= 2048


def recorded_file(**change: Any) -> bytes:
    model = {"id": "acme/mine", "config": read(LLAMA), "weights_bytes": 16_060_522_496}
    return json.dumps(model | change).encode()


SHAPE: dict[str, Any] = {
    "architecture": "llama",
    "context_length": 4096,
    "embedding_length": 64,
    "vocabulary_size": 100,
    "heads": 4,
    "feed_forward_length": 128,
    "embeddings_bytes": 1,
    "output_bytes": 1,
    "layers": [{"count": 32, "weights_bytes": 1}],
}


@pytest.mark.parametrize(
    ("content", "expected_message"),
    [
        (b"{}", "id: is missing; set it"),
        (b"[]", "must be an object"),
        (b'{"id": "a", "id": "b"}', "has the key 'id' twice"),
        (b"\xfe\xff", "is no UTF-8 text"),
        (recorded_file(weights_bytes=29), "weights_bytes is 29"),
        (recorded_file(weights_bytes=True), "weights_bytes: "),
        (recorded_file(weights_bytes=float("nan")), "weights_bytes: "),
        (recorded_file(revision=5), "revision: "),
        (recorded_file(quantization="fp8"), "quantization: "),
        (recorded_file(quantization={"quant_algo": 5}), "quant_algo is 5; it must be a text"),
        (recorded_file(quantization={"quant_algo": "FP8", "group_size": 0}), "group_size is 0"),
        (recorded_file(quantization={"quantized_layers": {"a": 5}}), "quantized_layers.a is 5"),
        (recorded_file(gguf={}), "gguf.architecture: is missing"),
        (recorded_file(gguf=SHAPE | {"heads": 10**9}), "gguf.heads: "),
        (recorded_file(gguf=SHAPE | {"layers": []}), "gguf: layers"),
        (recorded_file(gguf=SHAPE | {"layers": [{"count": 10**9}]}), "gguf.layers[0].count: "),
        (recorded_file(gguf=SHAPE | {"kind": "small"}), "gguf.kind: unknown key"),
    ],
)
def test_a_recorded_model_that_was_edited(tmp_path: Path, content: bytes, expected_message: str):
    file = tmp_path / "m.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.json: .*; correct it, or .*: python") as error:
        model_of_file(file)
    assert expected_message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a\0b.json", "x" * 300 + ".json", "~nobody-there/m.json"])
def test_a_name_that_no_file_can_have(name: str, tmp_path: Path):
    with pytest.raises(ValueError) as error:
        model_of_file(tmp_path / name)
    assert "\0" not in str(error.value) and "make it" in str(error.value)


SIZES: dict[str, Any] = {
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 8192,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}
T5 = {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16, "vocab_size": 32128}


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"hidden_size": 2048}, "num_hidden_layers"),
        ({"architectures": ["NovelForCausalLM"], "hidden_size": 2048}, "num_hidden_layers"),
        # Experts that are named otherwise, and a width that is not said.
        (SIZES | {"model_type": "novel", "num_moe_experts": 64}, "num_moe_experts"),
        (SIZES | {"model_type": "novel", "moe": {"experts": 64}}, "moe"),
        (
            {**SIZES, "model_type": "novel", "num_experts": 64, "intermediate_size": None},
            "moe_intermediate_size",
        ),
        # Latent attention whose rotary part is not said.
        (SIZES | {"model_type": "novel", "kv_lora_rank": 512}, "qk_rope_head_dim"),
        (
            SIZES | {"model_type": "novel", "kv_lora_rank": 512, "qk_rope_head_dim": 64},
            "qk_nope_head_dim",
        ),
        (T5 | {"model_type": "t5", "is_encoder_decoder": True}, "is_encoder_decoder"),
        (T5 | {"model_type": "mt5"}, "encoder-decoder"),
        (T5 | {"architectures": ["T5ForConditionalGeneration"]}, "encoder-decoder"),
        (SIZES | {"architectures": ["BartForConditionalGeneration"]}, "encoder-decoder"),
    ],
)
def test_an_unknown_kind_is_not_taken_for_llama(config: dict[str, Any], key: str):
    with pytest.raises(ValueError, match=key):
        parse_config(config)


def test_a_config_without_a_type_is_planned_by_its_own_sizes_with_a_warning():
    model = parse_config(SIZES)
    assert (model.hidden_size, len(model.layers)) == (2048, 24)
    assert model.warnings and not model.exact


def test_experts_in_unknown_words_are_planned_from_their_bytes_with_a_warning():
    config = SIZES | {"model_type": "novel", "num_moe_experts": 64}
    model = parse_config(config, weights_bytes=20 * 2**30)
    assert weights_per_gpu(model, 1) == pytest.approx(20 * 2**30, rel=0.02)
    assert any("num_moe_experts" in warning for warning in model.warnings)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("GPTNeoXForCausalLM", "gpt_neox"),
        ("Qwen2MoeForCausalLM", "qwen2_moe"),
        ("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl"),
        ("DeepseekV3ForCausalLM", "deepseek_v3"),
        ("LlamaForCausalLM", "llama"),
        ("MyLlamaForCausalLM", ""),
    ],
)
def test_the_type_follows_from_the_architecture_alone(name: str, kind: str):
    more = {"num_experts": 4, "moe_intermediate_size": 1024, "num_experts_per_tok": 2}
    config = SIZES | {"architectures": [name]} | (more if "Moe" in name else {})
    assert parse_config(config).model_type == kind


def test_gpt_neos_heads_are_read():
    config = {**SIZES, "model_type": "gpt_neo", "num_heads": 32, "num_attention_heads": None}
    assert parse_config(config).attention_heads == 32
