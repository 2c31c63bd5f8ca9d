"""Parses the files of a checkpoint: the index or the headers of safetensors."""

import struct
from collections.abc import Mapping
from typing import Any, TypeGuard

from roles.host import parse_json
from roles.models.config_keys import is_integer_between, short_repr

# A header is a few MB at most.
HEADER_LIMIT = 2**25
# More than any model's tensors.
MAX_BYTES = 2**50 - 1
INDEX = "model.safetensors.index.json"


def index_bytes(text: str | bytes, where: str) -> int:
    """The `total_size` of a model.safetensors.index.json; ValueError if it has none."""
    found = read_mapping(text, where)
    metadata = found.get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    if not is_integer_between(size, 1, MAX_BYTES):
        problem = (
            "no metadata.total_size"
            if size is None
            else f"a metadata.total_size of {short_repr(size)}"
        )
        raise ValueError(f"{where} has {problem}: bytes are expected; download it again")
    return int(size)  # type: ignore[arg-type]


def header_size(first: bytes, where: str) -> int:
    """The length of a safetensors header, from the file's first 8 bytes."""
    if len(first) < 8:
        raise ValueError(
            f"{where} is no safetensors file: it ends within its first 8 bytes; download it again"
        )
    (size,) = struct.unpack("<Q", first[:8])
    if not 2 <= size <= HEADER_LIMIT:
        raise ValueError(
            f"{where} is no safetensors file: its header would be {size} bytes long; download it "
            "again"
        )
    return size


def header_bytes(header: bytes, where: str, data_bytes: int = MAX_BYTES) -> int:
    """Bytes of all tensors in a safetensors header; ValueError if they exceed the file's data."""
    total = 0
    for name, tensor in read_mapping(header, where).items():
        if name == "__metadata__":
            continue
        offsets = tensor.get("data_offsets") if isinstance(tensor, Mapping) else None
        if not _are_offsets(offsets):
            raise ValueError(
                f"{where}: tensor {name[:100]!r} has data_offsets {short_repr(offsets)}: two "
                "numbers of "
                "bytes are expected; download it again"
            )
        shape = tensor.get("shape", [])
        if not isinstance(shape, list) or not all(type(one) is int and one >= 0 for one in shape):
            raise ValueError(
                f"{where}: tensor {name[:100]!r} has the shape {short_repr(shape)}: a list of "
                "sizes is expected; download it again"
            )
        if offsets[1] > data_bytes:
            raise ValueError(
                f"{where} is cut off: tensor {name[:100]!r} ends at byte {offsets[1]} of "
                f"{data_bytes}; download it again"
            )
        total += offsets[1] - offsets[0]
    if not total:
        raise ValueError(f"{where} names no tensor; download it again")
    if total > data_bytes:
        raise ValueError(f"{where}: its tensors overlap; download it again")
    return total


def _are_offsets(found: Any) -> TypeGuard[list[int]]:
    whole = isinstance(found, list) and all(type(one) is int for one in found)
    return whole and len(found) == 2 and 0 <= found[0] <= found[1]


def read_mapping(text: str | bytes, where: str) -> dict[str, Any]:
    """The JSON object of a checkpoint's file; the ValueError names the file."""
    try:
        found = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{where} {error}; download it again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{where} holds {type(found).__name__}, not a mapping; download it again")
    return found
