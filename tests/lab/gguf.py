"""The tiny model of `model.py` as llama.cpp takes it: one GGUF file, written by hand.

`tiny.gguf` has the same shapes and tokenizer in 290 kB. `slow.gguf` repeats its layers, so that
a request of some hundred tokens lasts seconds.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import model
from .paths import HERE, cached

TINY, SLOW = "tiny.gguf", "slow.gguf"
LAYERS = {TINY: model.LAYERS, SLOW: 100}
F32, F16 = 0, 1
"""GGUF's numbers of the types of tensors."""
UINT32, INT32, FLOAT32, STRING, ARRAY = 4, 5, 6, 8, 9
"""GGUF's numbers of the types of metadata."""
FORMATS = {UINT32: "<I", INT32: "<i", FLOAT32: "<f"}
NORMAL, CONTROL = 1, 3
"""Its numbers of the types of tokens."""
ALIGNMENT = 32

Tensor = tuple[str, tuple[int, ...]]
"""Its name, and its shape with the dimension first that lies densest in memory."""


def gguf() -> Path:
    """The folder with TINY and SLOW."""
    recipe = repr([(HERE / name).read_text() for name in ("gguf.py", "model.py")])
    return cached("gguf", recipe, _make)


def _make(partial: Path) -> None:
    for name, layers in LAYERS.items():
        (partial / name).write_bytes(content(layers))
        (partial / name).chmod(0o644)


def content(layers: int) -> bytes:
    """A whole GGUF file of version 3."""
    listed = list(tensors(layers))
    pairs = metadata(layers)
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(pairs)))
    for key, (kind, value) in pairs.items():
        head += _string(key) + struct.pack("<I", kind) + _value(kind, value)
    known: dict[str, bytes] = {}
    data = bytearray()
    for name, shape in listed:
        head += _string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", F32 if len(shape) == 1 else F16, len(data))
        role = name.split(".")[-2]
        if role not in known:
            known[role] = _weights(role, shape)
        # All layers are alike: what counts is how many there are.
        data += _padded(known[role])
    return bytes(_padded(head) + data)


def tensors(layers: int) -> Iterator[Tensor]:
    """All tensors, in the order in which they are stored."""
    hidden, wide = model.HIDDEN, model.INTERMEDIATE
    queries, keys = model.HEADS * model.HEAD_DIM, model.KV_HEADS * model.HEAD_DIM
    yield "token_embd.weight", (hidden, model.VOCABULARY)
    for layer in range(layers):
        for name, shape in (
            ("attn_norm", (hidden,)),
            ("attn_q", (hidden, queries)),
            ("attn_k", (hidden, keys)),
            ("attn_v", (hidden, keys)),
            ("attn_output", (queries, hidden)),
            ("ffn_norm", (hidden,)),
            ("ffn_gate", (hidden, wide)),
            ("ffn_up", (hidden, wide)),
            ("ffn_down", (wide, hidden)),
        ):
            yield f"blk.{layer}.{name}.weight", shape
    yield "output_norm.weight", (hidden,)
    yield "output.weight", (hidden, model.VOCABULARY)


def metadata(layers: int) -> dict[str, tuple[int, Any]]:
    """Keys with the types and values that llama.cpp asks of a Llama and its tokenizer."""
    tokens, merges = model.vocabulary()
    kinds = [CONTROL if token in model.SPECIAL else NORMAL for token in tokens]
    return {
        "general.architecture": (STRING, "llama"),
        "general.name": (STRING, "tiny"),
        "general.file_type": (UINT32, F16),
        "llama.block_count": (UINT32, layers),
        "llama.context_length": (UINT32, 32768),
        "llama.embedding_length": (UINT32, model.HIDDEN),
        "llama.feed_forward_length": (UINT32, model.INTERMEDIATE),
        "llama.attention.head_count": (UINT32, model.HEADS),
        "llama.attention.head_count_kv": (UINT32, model.KV_HEADS),
        "llama.attention.key_length": (UINT32, model.HEAD_DIM),
        "llama.attention.value_length": (UINT32, model.HEAD_DIM),
        "llama.attention.layer_norm_rms_epsilon": (FLOAT32, 1e-5),
        "llama.rope.dimension_count": (UINT32, model.HEAD_DIM),
        "llama.rope.freq_base": (FLOAT32, 10000.0),
        "llama.vocab_size": (UINT32, model.VOCABULARY),
        "tokenizer.ggml.model": (STRING, "gpt2"),
        "tokenizer.ggml.pre": (STRING, "gpt-2"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, tokens)),
        "tokenizer.ggml.token_type": (ARRAY, (INT32, kinds)),
        "tokenizer.ggml.merges": (ARRAY, (STRING, [" ".join(pair) for pair in merges])),
        "tokenizer.ggml.bos_token_id": (UINT32, 0),
        "tokenizer.ggml.eos_token_id": (UINT32, 1),
        "tokenizer.chat_template": (STRING, model.TEMPLATE),
    }


def _weights(role: str, shape: tuple[int, ...]) -> bytes:
    """Ones of a norm, otherwise random numbers that follow from the role."""
    if len(shape) == 1:
        return struct.pack(f"<{shape[0]}f", *[1.0] * shape[0])
    source, count = random.Random(role), shape[0] * shape[1]
    return struct.pack(f"<{count}e", *(source.gauss(0.0, 0.2) for _ in range(count)))


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _string(value)
    if kind == ARRAY:
        of, items = value
        return struct.pack("<IQ", of, len(items)) + b"".join(_value(of, item) for item in items)
    return struct.pack(FORMATS[kind], value)


def _padded(data: bytes | bytearray) -> bytes | bytearray:
    return data + bytes(-len(data) % ALIGNMENT)
