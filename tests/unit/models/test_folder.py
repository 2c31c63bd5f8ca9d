"""Models in a folder or a GGUF file, made by the tests byte by byte."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from roles.models.folder import read_folder
from tests.gguf_files import header
from tests.unit.models.published import read


def safetensors(tensors: dict[str, int]) -> bytes:
    """A file of tensors of so many bytes each."""
    header: dict[str, Any] = {}
    begin = 0
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [begin, begin + size]}
        begin += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(begin)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(read("Qwen3-0.6B")))
    return tmp_path


def test_tensors_of_all_files_are_added_up(folder: Path):
    (folder / "model-1.safetensors").write_bytes(safetensors({"a": 100, "b": 20}))
    (folder / "model-2.safetensors").write_bytes(safetensors({"c": 3}))
    model = read_folder(folder, model_id="local/qwen")
    assert (model.id, model.revision, model.weights_bytes) == ("local/qwen", None, 123)
    assert model.config["num_hidden_layers"] == 28


def test_an_index_alone_gives_the_bytes(folder: Path):
    index = {"metadata": {"total_size": 1_192_099_840}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_folder(folder).weights_bytes == 1_192_099_840


def test_nvidias_quantisation_lies_beside_the_config(folder: Path):
    (folder / "hf_quant_config.json").write_text(
        json.dumps({"quantization": {"quant_algo": "FP8"}})
    )
    quantization = read_folder(folder).model().quantization
    assert quantization is not None and quantization.linear.bits == 8


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{", "is no JSON"),
        ("config.json", b"[1]", "holds list"),
        ("m.safetensors", b"123", "ends within its first 8 bytes"),
        ("m.safetensors", b"\xff" * 16, "its header would be"),
        ("m.safetensors", struct.pack("<Q", 4) + b"nope", "is no JSON"),
        ("model.safetensors.index.json", b'{"metadata": {}}', "no metadata.total_size"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, name: str, content: bytes, message: str):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_folder(folder)
    assert name in str(error.value)


def test_an_empty_folder(tmp_path: Path):
    with pytest.raises(ValueError, match=r"config.json is not there: name the folder"):
        read_folder(tmp_path)


def gguf(version: int = 3) -> bytes:
    """A Llama of one layer: one tensor of 256 numbers in Q4_K (144 bytes), one of 10 in F32."""
    numbers = {
        "block_count": 1,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "context_length": 4096,
    }
    metadata = {"general.architecture": "llama", **{f"llama.{k}": v for k, v in numbers.items()}}
    metadata["tokenizer.ggml.tokens"] = [f"t{i}" for i in range(100)]
    tensors = {"blk.0.a": ((256,), "Q4_K"), "b": ((5, 2), "F32")}
    head, size = header(metadata, tensors, version=version)
    return head + bytes(size)


def test_a_gguf_file_says_all_by_itself(tmp_path: Path):
    file = tmp_path / "small.Q4_K_M.gguf"
    file.write_bytes(gguf())
    found = read_folder(file)
    assert (found.id, found.quantization) == ("small.Q4_K_M.gguf", "gguf q8_0")
    model = found.model()
    assert model.weights_bytes == 144 + 40
    assert (model.hidden_size, model.vocabulary_size, model.kv_heads) == (64, 100, 2)
    assert model.context_limit_tokens == 4096


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGML", "no GGUF file"),
        (gguf(9), "version 9"),
        (gguf()[:80], "within its header, at byte 80"),
        (gguf()[:-40], "cut off: b ends at byte"),
    ],
)
def test_a_gguf_file_that_is_none(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "m.gguf"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_folder(file)
