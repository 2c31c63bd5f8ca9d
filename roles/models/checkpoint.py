"""A checkpoint's files: an index or the headers of safetensors, and the header of a GGUF file."""

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

# A header is a few MB at most; more is no header (safetensors' own limit).
HEADER_LIMIT = 100_000_000
INDEX = "model.safetensors.index.json"
_GGUF_MAGIC = b"GGUF"
# GGUF's scalar types by number: how Python's struct reads them.
_SCALARS = dict(enumerate(["B", "b", "H", "h", "I", "i", "f", "?", None, None, "Q", "q", "d"]))
_STRING, _ARRAY = 8, 9
# ggml's tensor types by number: numbers a block, bytes a block.
_BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 36),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
}


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


def gguf(file: BinaryIO, where: str) -> tuple[dict[str, Any], int]:
    """The metadata and the bytes of all tensors of a GGUF file (format versions 2 and 3)."""
    try:
        return _gguf(file, where)
    except (struct.error, UnicodeDecodeError, MemoryError, OverflowError) as error:
        raise ValueError(f"{where} is cut off or damaged: download it anew") from error


def _gguf(file: BinaryIO, where: str) -> tuple[dict[str, Any], int]:
    if file.read(4) != _GGUF_MAGIC:
        raise ValueError(f"{where} is no GGUF file")
    version, tensors, pairs = _read(file, "<IQQ")
    if version not in (2, 3):
        raise ValueError(f"{where} is GGUF version {version}: only 2 and 3 are known")
    metadata = {}
    for _ in range(pairs):
        key = _text(file)
        (kind,) = _read(file, "<I")
        metadata[key] = _value(file, kind, where)
    return metadata, sum(_tensor(file, where) for _ in range(tensors))


def _tensor(file: BinaryIO, where: str) -> int:
    name = _text(file)
    (dimensions,) = _read(file, "<I")
    count = 1
    for size in _read(file, f"<{dimensions}Q"):
        count *= size
    kind, _ = _read(file, "<IQ")
    if kind not in _BLOCKS:
        raise ValueError(f"{where}: tensor {name!r} has the unknown type {kind}")
    numbers, size = _BLOCKS[kind]
    return count // numbers * size


def _read(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _text(file: BinaryIO) -> str:
    (length,) = _read(file, "<Q")
    if length > HEADER_LIMIT:
        raise OverflowError(length)
    return file.read(length).decode()


def _value(file: BinaryIO, kind: int, where: str) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind == _ARRAY:
        inner, length = _read(file, "<IQ")
        if length > HEADER_LIMIT:
            raise OverflowError(length)
        return [_value(file, inner, where) for _ in range(length)]
    form = _SCALARS.get(kind)
    if form is None:
        raise ValueError(f"{where}: metadata of the unknown type {kind}")
    return _read(file, f"<{form}")[0]
