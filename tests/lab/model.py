"""A tiny language model with random weights: a whole Llama of two layers in under 300 kB.

It answers nonsense, but it goes through every part of an engine as a large one does. Written by
hand (config, weights, tokenizer), so that the build needs no torch.
"""

from __future__ import annotations

import json
import random
import struct
from collections import Counter
from itertools import pairwise
from pathlib import Path

from .paths import cached

HIDDEN, LAYERS, HEADS, KV_HEADS, INTERMEDIATE, VOCABULARY = 64, 2, 4, 2, 128, 320
HEAD_DIM = 32
"""With 16, which 64/4 would give, vLLM's CPU attention dies at the first request."""
SPECIAL = ["<|begin|>", "<|end|>", "<|turn|>"]
SENTENCES = """The quick brown fox jumps over the lazy dog.
A host serves a model, and the balancer sends each request to a replica that answers.
What is the capital of France? The capital of France is Paris.
Write a short story about a machine that learns to count to ten.
One two three four five six seven eight nine ten.
user assistant system
"""
TEMPLATE = (
    "{{ '<|begin|>' }}{% for m in messages %}{{ '<|turn|>' + m['role'] + '\n' + m['content'] "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}"
)


def model() -> Path:
    """The model's folder: the weights path of every GPU host."""
    return cached("model", Path(__file__).read_text(), _make)


def _make(partial: Path) -> None:
    partial.chmod(0o755)
    (partial / "model.safetensors").write_bytes(_safetensors())
    texts = {
        "config.json": _config(),
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1},
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIAL[0],
            "eos_token": SPECIAL[1],
            "model_max_length": 32768,
            "chat_template": TEMPLATE,
        },
    }
    for name, content in texts.items():
        (partial / name).write_text(json.dumps(content, indent=1) + "\n")
    for path in partial.iterdir():
        path.chmod(0o644)


def _config() -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "bfloat16",
    }


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (HIDDEN,),
            f"{prefix}.post_attention_layernorm.weight": (HIDDEN,),
            f"{prefix}.self_attn.q_proj.weight": (HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}.self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}.self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}.self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_DIM),
            f"{prefix}.mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        }
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def _safetensors() -> bytes:
    source = random.Random(0)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, shape in _shapes().items():
        start = len(data)
        for _ in range(shape[0] * (shape[1] if len(shape) > 1 else 1)):
            value = 1.0 if len(shape) == 1 else source.gauss(0.0, 0.2)
            # bfloat16 is the upper half of a float32.
            data += struct.pack("<f", value)[2:]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def _byte_letters() -> list[str]:
    """The printable character by which byte-level BPE writes each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def _merges(count: int) -> list[tuple[str, str]]:
    """The pairs that byte-pair encoding joins first in SENTENCES."""
    letters = _byte_letters()
    words: Counter[str] = Counter(SENTENCES.replace("\n", " ").replace(" ", "\n ").split("\n"))
    parts = {word: [letters[byte] for byte in word.encode()] for word in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in parts.items():
            for pair in pairwise(pieces):
                pairs[pair] += words[word]
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for pieces in parts.values():
            _join(pieces, best)
    return merges


def _join(pieces: list[str], pair: tuple[str, str]) -> None:
    at = 0
    while at < len(pieces) - 1:
        if (pieces[at], pieces[at + 1]) == pair:
            pieces[at : at + 2] = ["".join(pair)]
        at += 1


def vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """All tokens by their numbers, and the pairs that are joined, first ones first."""
    merges = _merges(VOCABULARY - 256 - len(SPECIAL))
    return [*SPECIAL, *_byte_letters(), *map("".join, merges)], merges


def _tokenizer() -> dict[str, object]:
    tokens, merges = vocabulary()
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": token, "special": True} | flags
            for number, token in enumerate(SPECIAL)
        ],
        "pre_tokenizer": byte_level | {"use_regex": True},
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [" ".join(pair) for pair in merges],
        },
    }
