"""GGUF headers: what they say, and files that are cut off, damaged or none."""

import json
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.models import GgufLayers, model_of_file
from roles.models.folder import read_folder, recorded_gguf
from roles.models.gguf import Length, read_header
from roles.models.gguf_shape import gguf_shape
from tests.gguf_files import header, write_sparse
from tests.gguf_models import make, recorded, shape

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 4096,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": [2, 1],
    "llama.rope.freq_base": 1e6,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": [f"t{i}" for i in range(50)],
    "tokenizer.ggml.add_bos_token": True,
}
TENSORS: dict[str, tuple[tuple[int, ...], str]] = {
    "token_embd.weight": ((64, 50), "F16"),
    "output_norm.weight": ((64,), "F32"),
    "rope_freqs.weight": ((8,), "F32"),
    "blk.0.attn_q.weight": ((64, 64), "F16"),
    "blk.1.attn_q.weight": ((64, 64), "Q8_0"),
}
HEAD, SIZE = header(METADATA, TENSORS)


def parse(raw: bytes, size: int | None = None) -> Any:
    return read_header(BytesIO(raw), "m.gguf", len(raw) + SIZE if size is None else size)


def changed(**more: Any) -> Any:
    keys = {f"llama.{key.replace('__', '.')}": value for key, value in more.items()}
    found = header(METADATA | keys, TENSORS)[0]
    return gguf_shape(parse(found), "m.gguf")


def test_a_header_is_read_to_its_tensors():
    found = parse(HEAD)
    assert found.metadata["llama.attention.head_count_kv"] == (2, 1)
    assert found.metadata["tokenizer.ggml.tokens"] == Length(50)
    assert found.metadata["tokenizer.ggml.add_bos_token"] is True
    assert {one.name: one.bytes for one in found.tensors} == {
        "token_embd.weight": 6400,
        "output_norm.weight": 256,
        "rope_freqs.weight": 32,
        "blk.0.attn_q.weight": 8192,
        "blk.1.attn_q.weight": 4352,
    }
    assert found.bytes == 19232


def test_tensors_lie_in_layers_at_the_output_or_on_the_host():
    found = gguf_shape(parse(HEAD), "m.gguf")
    assert found.layers == (
        GgufLayers(1, 8192 + 32, kv_heads=2, key_length=16, value_length=16),
        GgufLayers(1, 4352, kv_heads=1, key_length=16, value_length=16),
    )
    assert (found.embeddings_bytes, found.output_bytes, found.tied) == (6400, 256, True)
    assert (found.vocabulary_size, found.context_length, found.heads) == (50, 4096, 4)


@pytest.mark.parametrize(
    ("name", "first", "windows"),
    [
        ("Mistral-7B-v0.1", 0, 0),
        ("gemma-2-27b-it", 4096, 23),
        ("gemma-3-12b-it", 1024, 40),
        ("gpt-oss-20b", 128, 12),
        ("phi-4", 0, 0),
    ],
)
def test_windows_follow_from_the_architecture(name: str, first: int, windows: int):
    layers = shape(name).every_layer
    assert layers[0].window == first
    assert sum(bool(layer.window) for layer in layers) == windows


@pytest.mark.parametrize(
    ("kind", "keys", "layers"),
    [
        # A pattern that the file says itself, by layer.
        (
            "gemma4",
            {
                "attention.sliding_window": 512,
                "attention.sliding_window_pattern": [True, False],
                "attention.key_length_swa": 8,
                "attention.value_length_swa": 8,
            },
            (GgufLayers(1, 8224, 2, 8, 8, 512), GgufLayers(1, 4352, 2, 16, 16)),
        ),
        # Latent attention keeps keys alone.
        (
            "deepseek2",
            {
                "attention.head_count_kv": 1,
                "attention.key_length": 576,
                "attention.key_length_mla": 192,
            },
            (GgufLayers(1, 8224, 1, 576, 0), GgufLayers(1, 4352, 1, 576, 0)),
        ),
        # Every second layer is full attention, the other keeps a state.
        (
            "qwen3next",
            {
                "full_attention_interval": 2,
                "ssm.state_size": 8,
                "ssm.inner_size": 32,
                "ssm.conv_kernel": 4,
                "ssm.group_count": 2,
            },
            (
                GgufLayers(1, 8224, state_bytes=4 * (3 * (32 + 32) + 256)),
                GgufLayers(1, 4352, 2, 16, 16),
            ),
        ),
        # The last block predicts a token further on.
        ("glm4moe", {"nextn_predict_layers": 1}, (GgufLayers(1, 8224, 2, 16, 16),)),
    ],
)
def test_what_layers_keep(kind: str, keys: dict[str, Any], layers: tuple[GgufLayers, ...]):
    own = {key.replace("llama.", f"{kind}."): value for key, value in METADATA.items()}
    own |= {"general.architecture": kind, f"{kind}.attention.head_count_kv": 2}
    own |= {f"{kind}.{key}": value for key, value in keys.items()}
    found = gguf_shape(parse(header(own, TENSORS)[0]), "m.gguf")
    assert found.layers[: len(layers)] == layers


@pytest.mark.parametrize("length", range(0, len(HEAD), 7))
def test_a_header_that_is_cut_off_is_named(length: int):
    with pytest.raises(ValueError, match=r"m\.gguf"):
        parse(HEAD[:length])


@pytest.mark.parametrize(
    ("left", "block"),
    [
        (["token_embd.weight"], 0),
        (["token_embd.weight", "blk.0.attn_q.weight"], 1),
        (["token_embd.weight", "rope_freqs.weight", "blk.1.attn_q.weight"], 0),
    ],
)
def test_a_file_without_tensors_of_a_block_is_refused(left: list[str], block: int):
    own = {name: TENSORS[name] for name in left} | {"blk.99.attn_q.weight": ((64, 64), "F16")}
    raw, size = header(METADATA, own)
    found = parse(raw, len(raw) + size)
    with pytest.raises(ValueError, match=rf"m\.gguf: block {block} of 2 has no tensors.*download"):
        gguf_shape(found, "m.gguf")


def test_data_that_is_cut_off_is_named():
    with pytest.raises(ValueError, match=r"cut off: blk\.1\.attn_q\.weight ends at byte"):
        parse(HEAD, len(HEAD) + SIZE - 1)


@given(st.data())
def test_a_damaged_header_is_read_or_named_and_no_more(data: st.DataObject):
    raw = bytearray(HEAD)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        gguf_shape(parse(bytes(raw)), "m.gguf")
    except ValueError as error:
        assert "m.gguf" in str(error) or "layers" in str(error)


@given(st.binary(max_size=200))
def test_bytes_after_the_magic_are_read_or_named(raw: bytes):
    try:
        parse(b"GGUF" + struct.pack("<I", 3) + raw)
    except ValueError as error:
        assert "m.gguf" in str(error)


def pair(kind: int, value: bytes) -> bytes:
    """A file of one metadata pair of any kind."""
    return (
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + struct.pack("<Q", 1)
        + b"k"
        + (struct.pack("<I", kind) + value)
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 1), "1099511627776 tensors"),
        (pair(8, struct.pack("<Q", 2**60)), "a text would be"),
        (pair(9, struct.pack("<IQ", 4, 2**60)), "would have"),
        (pair(9, struct.pack("<IQ", 4, 2**25)), "its header is larger"),
        # Arrays of arrays would be read without end.
        (pair(9, struct.pack("<IQ", 9, 1)), "array of the unknown type 9"),
        (pair(13, b""), "of the unknown type 13"),
        (header({"k": 1, "general.alignment": 24}, {})[0], "no power of 2"),
    ],
)
def test_what_no_header_says(raw: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        parse(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_count": 0}, "block_count is 0"),
        ({"block_count": 5000}, "block_count is 5000"),
        ({"context_length": "long"}, "context_length is 'long'"),
        ({"embedding_length": True}, "embedding_length is True"),
    ],
)
def test_a_wrong_key_is_named(change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"m.gguf: llama.{message}"):
        changed(**change)


def test_what_is_recorded_is_the_same_model(tmp_path: Path):
    found = read_folder(make(tmp_path, "gpt-oss-20b"), model_id="openai/gpt-oss-20b-GGUF")
    file = tmp_path / "mine.json"
    file.write_text(found.text())
    model = model_of_file(file)
    assert (model, model.gguf) == (found.model(), found.gguf)
    assert (model.format, model.name) == ("gguf", "openai/gpt-oss-20b-GGUF")
    assert model.weights_bytes == 13_779_630_336


def test_equal_layers_are_recorded_once():
    message = json.loads(recorded("Llama-3.1-8B-Instruct").text())
    assert message["gguf"]["layers"] == [
        {
            "count": 32,
            "weights_bytes": 436_240_384,
            "kv_heads": 8,
            "key_length": 128,
            "value_length": 128,
        }
    ]


def test_a_split_file_is_read_in_all_its_parts(tmp_path: Path):
    names = [f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    parts: list[dict[str, tuple[tuple[int, ...], str]]] = [
        {key: TENSORS[key] for key in list(TENSORS)[:3]},
        {key: TENSORS[key] for key in list(TENSORS)[3:]},
    ]
    for name, tensors in zip(names, parts, strict=True):
        write_sparse(tmp_path / name, METADATA | {"split.count": 2}, tensors)
    assert read_folder(tmp_path / names[0]).weights_bytes == 19232
    with pytest.raises(ValueError, match="name the first one"):
        read_folder(tmp_path / names[1])


@pytest.mark.parametrize(
    ("keys", "pooling", "encoder", "generates"),
    [
        ({}, "", False, True),
        ({"pooling_type": 0}, "none", False, True),
        ({"pooling_type": 3}, "last", False, False),
        ({"pooling_type": 1, "attention__causal": False}, "mean", True, False),
        ({"pooling_type": 4, "attention__causal": True}, "rank", False, False),
    ],
)
def test_what_a_file_is_made_for(
    keys: dict[str, Any], pooling: str, encoder: bool, generates: bool, tmp_path: Path
):
    found = changed(**keys)
    assert (found.pooling, found.encoder) == (pooling, encoder)
    # Who sees all of a text at once keeps nothing of it.
    assert all(not one.kv_heads for one in found.layers) is encoder
    written = tmp_path / "m.json"
    more = {f"llama.{key.replace('__', '.')}": value for key, value in keys.items()}
    head = header(METADATA | more, TENSORS)[0]
    written.write_text(recorded_gguf(parse(head), "m", "m").text())
    model = model_of_file(written)
    assert model.gguf == found
    assert (model.generates, model.classifies) == (generates, pooling == "rank")


def test_an_unknown_pooling_is_named():
    with pytest.raises(ValueError, match="pooling_type is 9"):
        changed(pooling_type=9)
