"""GGUF files of real models' shapes, made from their config.json, without data.

Names and sizes of tensors are those of llama.cpp b11434's loaders (`src/models/*.cpp`).
"""

from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from roles.models import GgufShape, Model
from roles.models.folder import recorded_gguf
from roles.models.gguf import read_header
from roles.models.settings import RecordedModel
from tests.gguf_files import header, write_sparse
from tests.unit.models.published import read

# Architectures by model_type; what is not named is as Llama's.
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "gpt_oss": "gpt-oss",
}
_TIED = ("gemma2", "gemma3")
_WITH_WINDOWS = ("gemma2", "gemma3", "gpt-oss")
Tensors = dict[str, tuple[tuple[int, ...], str]]


def make(folder: Path, name: str, matrices: str = "F16") -> Path:
    """The GGUF of a published config.json; `matrices` is the type of its large tensors."""
    return write_sparse(folder / f"{name}.gguf", *_content(name, matrices))


@cache
def recorded(name: str, matrices: str = "F16") -> RecordedModel:
    """The same as it is recorded, with no file written."""
    head, size = header(*_content(name, matrices))
    return recorded_gguf(read_header(BytesIO(head), name, len(head) + size), name, name)


def gguf_model(name: str, matrices: str = "F16") -> Model:
    """The same as a plan has it."""
    return recorded(name, matrices).model()


def shape(name: str, matrices: str = "F16") -> GgufShape:
    """The same as far as memory goes."""
    found = recorded(name, matrices).gguf
    assert found is not None
    return found


def _content(name: str, matrices: str) -> tuple[dict[str, Any], Tensors]:
    config = read(name)
    config = config.get("text_config", config)
    sizes = _Sizes(config, matrices)
    tensors: Tensors = dict(sizes.ends())
    for layer in range(config["num_hidden_layers"]):
        tensors |= {f"blk.{layer}.{key}": value for key, value in sizes.layer()}
    return sizes.metadata(), tensors


class _Sizes:
    """The tensors and the metadata of one config."""

    def __init__(self, config: dict[str, Any], matrices: str) -> None:
        self.config, self.type = config, matrices
        self.kind = ARCHITECTURES[config["model_type"]]
        self.hidden, self.inner = config["hidden_size"], config["intermediate_size"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head = config.get("head_dim") or self.hidden // self.heads
        self.experts = config.get("num_experts") or config.get("num_local_experts") or 0
        self.own = config.get("moe_intermediate_size") or self.inner
        self.tied = config.get("tie_word_embeddings", self.kind in _TIED)

    def metadata(self) -> dict[str, Any]:
        """What llama.cpp must know of the architecture."""
        config = self.config
        own: dict[str, Any] = {
            "block_count": config["num_hidden_layers"],
            "context_length": config["max_position_embeddings"],
            "embedding_length": self.hidden,
            "feed_forward_length": self.inner,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.head,
            "attention.value_length": self.head,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "rope.dimension_count": self.head,
            "vocab_size": config["vocab_size"],
        }
        if self.experts:
            own["expert_count"] = self.experts
            own["expert_used_count"] = config["num_experts_per_tok"]
            own["expert_feed_forward_length"] = self.own
        if self.kind in _WITH_WINDOWS:
            own["attention.sliding_window"] = config["sliding_window"]
        metadata = {f"{self.kind}.{key}": value for key, value in own.items()}
        return {
            "general.architecture": self.kind,
            **metadata,
            "tokenizer.ggml.model": "none",
        }

    def ends(self) -> Iterator[tuple[str, tuple[tuple[int, ...], str]]]:
        """What is in no layer."""
        vocabulary = self.config["vocab_size"]
        yield "token_embd.weight", ((self.hidden, vocabulary), self.type)
        yield "output_norm.weight", ((self.hidden,), "F32")
        if not self.tied:
            yield "output.weight", ((self.hidden, vocabulary), self.type)

    def layer(self) -> Iterator[tuple[str, tuple[tuple[int, ...], str]]]:
        """The tensors of a layer."""
        yield from self._attention()
        yield from self._experts() if self.experts else self._dense()
        norms = ["attn_norm", "post_attention_norm"] if self.kind == "gpt-oss" else []
        norms = norms or ["attn_norm", "ffn_norm"]
        if self.kind.startswith("gemma"):
            norms += ["post_attention_norm", "post_ffw_norm"]
        for norm in norms:
            yield f"{norm}.weight", ((self.hidden,), "F32")

    def _attention(self) -> Iterator[tuple[str, tuple[tuple[int, ...], str]]]:
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        if self.kind == "phi3":
            yield "attn_qkv.weight", ((self.hidden, queries + 2 * keys), self.type)
        else:
            for name, width in (("q", queries), ("k", keys), ("v", keys)):
                yield f"attn_{name}.weight", ((self.hidden, width), self.type)
                if self.kind in ("qwen2", "gpt-oss"):
                    yield f"attn_{name}.bias", ((width,), "F32")
        yield "attn_output.weight", ((queries, self.hidden), self.type)
        if self.kind in ("qwen3", "qwen3moe", "gemma3"):
            yield "attn_q_norm.weight", ((self.head,), "F32")
            yield "attn_k_norm.weight", ((self.head,), "F32")
        if self.kind == "gpt-oss":
            yield "attn_output.bias", ((self.hidden,), "F32")
            yield "attn_sinks.weight", ((self.heads,), "F32")

    def _dense(self) -> Iterator[tuple[str, tuple[tuple[int, ...], str]]]:
        if self.kind == "phi3":
            yield "ffn_up.weight", ((self.hidden, 2 * self.inner), self.type)
        else:
            yield "ffn_gate.weight", ((self.hidden, self.inner), self.type)
            yield "ffn_up.weight", ((self.hidden, self.inner), self.type)
        yield "ffn_down.weight", ((self.inner, self.hidden), self.type)

    def _experts(self) -> Iterator[tuple[str, tuple[tuple[int, ...], str]]]:
        kind = "MXFP4" if self.kind == "gpt-oss" else self.type
        sizes = {"gate": (self.hidden, self.own), "up": (self.hidden, self.own)}
        yield "ffn_gate_inp.weight", ((self.hidden, self.experts), "F32")
        for name, (inputs, outputs) in {**sizes, "down": (self.own, self.hidden)}.items():
            yield f"ffn_{name}_exps.weight", ((inputs, outputs, self.experts), kind)
            if self.kind == "gpt-oss":
                yield f"ffn_{name}_exps.bias", ((outputs, self.experts), "F32")
        if self.kind == "gpt-oss":
            yield "ffn_gate_inp.bias", ((self.experts,), "F32")
