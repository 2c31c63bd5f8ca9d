"""Parses the header of a GGUF file: its metadata and tensors.

Source: llama.cpp b11434, `ggml/src/gguf.cpp` (format versions 2 and 3, little endian). It is read
in one pass, and only data that plans need is kept: of arrays of texts (a vocabulary) only the
length.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# Bounds far above any model's, so that a damaged file cannot keep the reader busy for hours.
MAX_PAIRS = MAX_TENSORS = 1 << 16
MAX_HEADER_BYTES = 1 << 26
MAX_TEXT_BYTES = 1 << 24
# In arrays, of all keys together: a large vocabulary has 262,144 and twice as many merges.
MAX_TEXTS = 1 << 21
MAX_DIMENSIONS = 4
# Arrays of numbers are kept up to this: one for each layer. Longer ones belong to vocabularies.
MAX_KEPT_TEXT = 1 << 12
DEFAULT_ALIGNMENT = 32
_CHUNK_BYTES = 1 << 20

_TEXT, _ARRAY = 8, 9
# The scalar types by number, as Python's struct reads them.
_SCALARS: Mapping[int, str] = {
    **dict(enumerate(["B", "b", "H", "h", "I", "i", "f", "?"])),
    **{10: "Q", 11: "q", 12: "d"},
}
# ggml's tensor types by number: numbers a block, bytes a block (`gguf-py`, GGML_QUANT_SIZES).
BLOCKS: Mapping[int, tuple[int, int]] = {
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
    40: (64, 36),
    41: (128, 18),
    42: (64, 18),
}


@dataclass(frozen=True)
class Length:
    """The length of an array whose values are not kept."""

    count: int


Scalar = bool | int | float | str
Value = Scalar | tuple[Any, ...] | Length


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file: its sizes with the innermost first, ggml's type, and its bytes."""

    name: str
    sizes: tuple[int, ...]
    type: int
    bytes: int


@dataclass(frozen=True)
class Header:
    """The header of a GGUF file."""

    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.bytes for tensor in self.tensors)


def read_header(file: BinaryIO, where: str, file_bytes: int) -> Header:
    """The header of a GGUF file of `file_bytes` bytes; the ValueError names the file and the fault.

    The tensors' data must be within the file, as llama.cpp requires.
    """
    reader = _Reader(file, where)
    if reader.take(len(MAGIC)) != MAGIC:
        raise ValueError(f"{where} is no GGUF file; download it again")
    (version,) = reader.unpack("<I")
    if version not in VERSIONS:
        raise ValueError(
            f"{where} is GGUF version {version}: only 2 and 3 are known; convert it again"
        )
    tensors, pairs = reader.unpack("<QQ")
    if tensors > MAX_TENSORS or pairs > MAX_PAIRS:
        raise reader.damaged(f"it has {tensors} tensors and {pairs} metadata pairs")
    metadata = _metadata(reader, pairs)
    alignment = _alignment(metadata, reader)
    infos = [_tensor(reader, alignment) for _ in range(tensors)]
    if len({info.name for info, _ in infos}) < len(infos):
        raise reader.damaged("two of its tensors have one name")
    begin = _round_up(reader.position, alignment)
    for info, offset in infos:
        if begin + offset + info.bytes > file_bytes:
            raise ValueError(
                f"{where} is cut off: {info.name} ends at byte {begin + offset + info.bytes} of "
                f"{file_bytes}; download it again"
            )
    return Header(metadata, tuple(info for info, _ in infos))


class _Reader:
    """Reads a file from its start, up to the maximum size of a header."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file, self._where = file, where
        self.position = 0
        self.texts = 0

    def damaged(self, fault: str) -> ValueError:
        """The error for a fault near the reader's position."""
        return ValueError(
            f"{self._where} is damaged: {fault} (near byte {self.position}); download it again"
        )

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if self.position + count > MAX_HEADER_BYTES:
            raise self.damaged(f"its header is larger than {MAX_HEADER_BYTES} bytes")
        found = self._file.read(count)
        self.position += len(found)
        if len(found) < count:
            raise ValueError(
                f"{self._where} is cut off: it ends within its header, at byte {self.position}; "
                "download it again"
            )
        return found

    def unpack(self, form: str) -> tuple[Any, ...]:
        """The next numbers."""
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def text(self) -> str:
        """The next text."""
        raw = self.raw_text()
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.damaged(f"{raw[:20]!r} is no text") from None

    def raw_text(self) -> bytes:
        """The next text as bytes."""
        (length,) = self.unpack("<Q")
        if length > MAX_TEXT_BYTES:
            raise self.damaged(f"a text would be {length} bytes long")
        return self.take(length)

    def skip_texts(self, count: int) -> None:
        """Skip a number of texts, which need not be UTF-8.

        Reads large chunks: a vocabulary has hundreds of thousands of texts.
        """
        chunk, at = b"", 0
        for _ in range(count):
            if len(chunk) - at < 8:
                self.position += at
                self._file.seek(self.position)
                chunk, at = self._file.read(_CHUNK_BYTES), 0
            length = int.from_bytes(chunk[at : at + 8], "little")
            if at + 8 + length > len(chunk):
                # The text continues beyond the chunk, or is damaged.
                self.position += at
                self._file.seek(self.position)
                self.raw_text()
                chunk, at = b"", 0
            else:
                at += 8 + length
        self.position += at
        self._file.seek(self.position)
        self.take(0)


def _metadata(reader: _Reader, pairs: int) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for _ in range(pairs):
        key = reader.text()
        if key in found:
            raise reader.damaged(f"it has {key!r} twice")
        (kind,) = reader.unpack("<I")
        found[key] = _array(reader, key) if kind == _ARRAY else _scalar(reader, kind, key)
    return found


def _scalar(reader: _Reader, kind: int, key: str) -> Scalar:
    if kind == _TEXT:
        return reader.text()
    form = _SCALARS.get(kind)
    if form is None:
        raise reader.damaged(f"{key!r} is of the unknown type {kind}")
    return reader.unpack(f"<{form}")[0]


def _array(reader: _Reader, key: str) -> Value:
    kind, count = reader.unpack("<IQ")
    if count > MAX_HEADER_BYTES:
        raise reader.damaged(f"{key!r} would have {count} values")
    if kind == _TEXT:
        reader.texts += count
        if reader.texts > MAX_TEXTS:
            raise reader.damaged(f"{key!r} would have {count} texts")
        reader.skip_texts(count)
        return Length(count)
    form = _SCALARS.get(kind)
    if form is None:
        # This includes arrays of arrays, which llama.cpp does not have.
        raise reader.damaged(f"{key!r} is an array of the unknown type {kind}")
    raw = reader.take(count * struct.calcsize(form))
    return struct.unpack(f"<{count}{form}", raw) if count <= MAX_KEPT_TEXT else Length(count)


def _alignment(metadata: Mapping[str, Value], reader: _Reader) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or value <= 0 or value & (value - 1):
        raise reader.damaged(f"general.alignment is {value!r}, no power of 2")
    return value


def _tensor(reader: _Reader, alignment: int) -> tuple[Tensor, int]:
    """A tensor, and where its data begins within the data."""
    name = reader.text()
    (dimensions,) = reader.unpack("<I")
    if dimensions > MAX_DIMENSIONS:
        raise reader.damaged(f"tensor {name!r} has {dimensions} dimensions")
    sizes = reader.unpack(f"<{dimensions}Q")
    kind, offset = reader.unpack("<IQ")
    if kind not in BLOCKS:
        raise reader.damaged(f"tensor {name!r} has the unknown type {kind}")
    numbers, block_bytes = BLOCKS[kind]
    if sizes and sizes[0] % numbers:
        raise reader.damaged(f"rows of {sizes[0]} in tensor {name!r} are no whole blocks")
    if offset % alignment:
        raise reader.damaged(
            f"tensor {name!r} begins at {offset}, not at a multiple of {alignment}"
        )
    count = 1
    for size in sizes:
        count *= size
    return Tensor(name, sizes, kind, count // numbers * block_bytes), offset


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
