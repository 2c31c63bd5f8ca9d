"""A model in a local folder: config.json beside safetensors files, or one GGUF file."""

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from roles.host import open_file, path_exists, read_bytes
from roles.models import checkpoint
from roles.models.config_keys import is_integer_between, short_repr
from roles.models.gguf import Header, Length, read_header
from roles.models.gguf_shape import GgufShape, gguf_shape
from roles.models.settings import RecordedModel, nvidia_quantization

# llama.cpp's names of the architecture's sizes, and those of config.json.
_GGUF_KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "context_length": "max_position_embeddings",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
_MAX_PARTS = 1000
_GGUF_TYPES = {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "gpt-oss": "gpt_oss"}


def read_folder(folder: Path, *, model_id: str = "") -> RecordedModel:
    """The model in a folder, or in a GGUF file, with the exact bytes of its tensors.

    ValueError if a file is missing or damaged, with its name and the remedy.
    """
    name = model_id or folder.resolve().name
    if folder.suffix == ".gguf":
        return _read_gguf(folder, name)
    config = folder / "config.json"
    if not path_exists(config):
        raise ValueError(f"{config} is not there: name the folder that a model was saved in")
    quantized = folder / "hf_quant_config.json"
    return RecordedModel(
        id=name,
        config=_read_mapping(config),
        weights_bytes=_weights_bytes(folder),
        quantization=nvidia_quantization(
            _read_mapping(quantized) if path_exists(quantized) else None
        ),
    )


def _read_mapping(path: Path) -> dict[str, Any]:
    return checkpoint.read_mapping(read_bytes(path), str(path))


def _weights_bytes(folder: Path) -> int | None:
    """Bytes of the tensors from their headers, else from the index; None without files."""
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return sum(_header_bytes(file) for file in files)
    index = folder / checkpoint.INDEX
    return checkpoint.index_bytes(read_bytes(index), str(index)) if path_exists(index) else None


def _header_bytes(path: Path) -> int:
    with open_file(path) as file:
        size = checkpoint.header_size(file.read(8), str(path))
        data_bytes = os.fstat(file.fileno()).st_size - 8 - size
        if data_bytes < 0:
            raise ValueError(f"{path} is cut off within its header; download it again")
        return checkpoint.header_bytes(file.read(size), str(path), data_bytes)


def _read_gguf(path: Path, name: str) -> RecordedModel:
    """The model in a GGUF file, or in all parts of one that is split."""
    header = _gguf_header(path)
    for part in _other_parts(path, header):
        more = _gguf_header(part)
        header = replace(header, tensors=(*header.tensors, *more.tensors))
    return recorded_gguf(header, name, str(path))


def recorded_gguf(header: Header, name: str, where: str) -> RecordedModel:
    """The model whose GGUF file has this header."""
    shape = gguf_shape(header, where)
    # Validated from mappings, so that the recording can be read again.
    recorded = {
        "id": name,
        "config": _gguf_config(header, shape),
        "weights_bytes": header.bytes,
        "quantization": "gguf q8_0",
        "gguf": asdict(shape),
    }
    return RecordedModel.model_validate(recorded)


def _gguf_header(path: Path) -> Header:
    with open_file(path) as file:
        return read_header(file, str(path), os.fstat(file.fileno()).st_size)


def _other_parts(path: Path, header: Header) -> list[Path]:
    """The files beside the first that hold the rest of a split model's tensors."""
    count: Any = header.metadata.get("split.count", 1)
    if not is_integer_between(count, 0, 2**16):
        fault = f"split.count is {short_repr(count)}"
        raise ValueError(f"{path} is damaged: {fault}; download it again")
    if count < 2:
        return []
    stem, first = path.stem, f"-00001-of-{count:05d}"
    if count > _MAX_PARTS or not stem.endswith(first):
        raise ValueError(
            f"{path} is a part of {count}: name the first one, {first}.gguf at its end"
        )
    base = stem.removesuffix(first)
    return [path.with_name(f"{base}-{n:05d}-of-{count:05d}.gguf") for n in range(2, count + 1)]


def _gguf_config(header: Header, shape: GgufShape) -> dict[str, Any]:
    """The sizes by their names in a config.json."""
    kind = shape.architecture
    config: dict[str, Any] = {"model_type": _GGUF_TYPES.get(kind, kind)}
    for gguf_key, config_key in _GGUF_KEYS.items():
        value = header.metadata.get(f"{kind}.{gguf_key}")
        # Sizes that differ by layer are lists; use the largest.
        if isinstance(value, tuple):
            value = max(value, default=None)
        if value is not None and not isinstance(value, Length):
            config[config_key] = value
    return config | {"vocab_size": shape.vocabulary_size}
