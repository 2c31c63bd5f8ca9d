"""GGUF files as tests need them: whole headers, and data that takes no room on the disk."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from roles.models.gguf import BLOCKS

ALIGNMENT = 32
TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14, "MXFP4": 39}
Tensors = Mapping[str, tuple[Sequence[int], str]]


def header(metadata: Mapping[str, Any], tensors: Tensors, *, version: int = 3) -> tuple[bytes, int]:
    """A file's header up to its data, and how many bytes the data takes.

    Integers are written as uint32 (int32 below 0), lists by their first value.
    """
    infos, offset = [], 0
    for name, (sizes, kind) in tensors.items():
        numbers, block_bytes = BLOCKS[TYPES[kind]]
        count = 1
        for size in sizes:
            count *= size
        info = _text(name) + struct.pack("<I", len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)
        infos.append(info + struct.pack("<IQ", TYPES[kind], offset))
        offset += _up(count // numbers * block_bytes)
    pairs = [_text(key) + _typed(value) for key, value in metadata.items()]
    head = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(pairs))
    head += b"".join(pairs) + b"".join(infos)
    return head.ljust(_up(len(head)), b"\0"), offset


def write_sparse(path: Path, metadata: Mapping[str, Any], tensors: Tensors) -> Path:
    """Write a file of full size whose data is a hole."""
    head, size = header(metadata, tensors)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    return path


def _typed(value: Any) -> bytes:
    if isinstance(value, list):
        kind, _ = _value(value[0])
        return struct.pack("<IIQ", 9, kind, len(value)) + b"".join(_value(one)[1] for one in value)
    kind, raw = _value(value)
    return struct.pack("<I", kind) + raw


def _value(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return (4, struct.pack("<I", value)) if value >= 0 else (5, struct.pack("<i", value))
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    return 8, _text(value)


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _up(value: int) -> int:
    return -(-value // ALIGNMENT) * ALIGNMENT
