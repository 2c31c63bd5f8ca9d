"""A checkpoint's files: an index or the headers of safetensors."""

import json
import struct
from collections.abc import Mapping
from typing import Any

# A header is a few MB at most; more is no header (safetensors' own limit).
HEADER_LIMIT = 100_000_000
INDEX = "model.safetensors.index.json"


def index_bytes(text: str | bytes, where: str) -> int:
    """The `total_size` of a model.safetensors.index.json; ValueError where it has none."""
    found = _json(text, where)
    metadata = found.get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    if isinstance(size, float) and size.is_integer():
        size = int(size)
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
        raise ValueError(f"{where} has no metadata.total_size: download it anew")
    return size


def header_size(first: bytes, where: str) -> int:
    """How long a safetensors header is, from the file's first 8 bytes."""
    if len(first) < 8:
        raise ValueError(f"{where} is no safetensors file: it ends within its first 8 bytes")
    (size,) = struct.unpack("<Q", first[:8])
    if not 2 <= size <= HEADER_LIMIT:
        raise ValueError(f"{where} is no safetensors file: its header would be {size} bytes long")
    return size


def header_bytes(header: bytes, where: str) -> int:
    """Bytes of all tensors that a safetensors header names."""
    ends = [0]
    for name, tensor in _json(header, where).items():
        if name == "__metadata__":
            continue
        offsets = tensor.get("data_offsets") if isinstance(tensor, Mapping) else None
        if not isinstance(offsets, list) or len(offsets) != 2:
            raise ValueError(f"{where}: tensor {name!r} has no data_offsets: download it anew")
        ends.append(offsets[1] - offsets[0])
    return sum(ends)


def _json(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON ({error}): download it anew") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where} holds {type(found).__name__}, not a mapping")
    return found
