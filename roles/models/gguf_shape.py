"""The memory shape of a GGUF file for llama.cpp: tensors by location, and state per layer.

Source: llama.cpp b11434, `src/llama-arch.cpp` (which tensors are input and output),
`src/llama-hparams.cpp` (KV and states by layer), `src/models/*.cpp` (windows by architecture).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from roles.models.config_keys import MAX_LAYERS, short_repr
from roles.models.gguf import Header, Length, Tensor

_FORBID = ConfigDict(extra="forbid")
Size = Annotated[int, Field(strict=True, ge=0, lt=2**50)]
Positive = Annotated[int, Field(strict=True, gt=0, lt=2**31)]

# Every n-th layer has full attention, the others a window: (n, whether the first of n is full).
_WINDOWS: Mapping[str, tuple[int, bool]] = {
    "afmoe": (4, False),
    "cohere2": (4, False),
    "cohere2moe": (4, True),
    "exaone-moe": (4, False),
    "exaone4": (4, False),
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gpt-oss": (2, False),
    "laguna": (4, True),
    "llama4": (4, False),
    "mellum": (4, False),
    "muse-glimmer": (4, False),
    "olmo2": (4, False),
    "plamo3": (8, False),
    "smallthinker": (4, True),
}
# Architectures whose files have the pattern by layer, or that have no windows.
_PATTERN_ALONE = frozenset(
    ("dots3note", "gemma4", "granite-swa", "maple", "mimo2", "spark2-5", "step35")
)
_DEFAULT_WINDOW = {"gemma2": 4096, "llama4": 8192}
# Small EXAONE 4 have no windows although their files name one.
_MIN_LAYERS = {"exaone4": 64}
_ON_THE_HOST = ("token_embd.", "position_embd.", "token_types.", "per_layer_token_embd.")
_HYBRID_INTERVAL = frozenset(("qwen3next", "qwen35", "qwen35moe", "qwen4exp"))
_BLOCK = re.compile(r"blk\.(\d{1,5})\.")
# By their numbers in a file (llama.cpp `include/llama.h`, llama_pooling_type).
_POOLINGS = ("none", "mean", "cls", "last", "rank")
_FIRST_SHARED_LAYER = {"gemma3n": 20}


@dataclass(frozen=True)
class GgufLayers:
    """`count` equal layers in a row.

    `weights_bytes` are those of each. Attention keeps `kv_heads` × (`key_length` + `value_length`)
    numbers of a token, of at most `window` tokens where that is not 0; `state_bytes` is what a
    recurrent layer keeps of a request whatever its length.
    """

    __pydantic_config__ = _FORBID

    count: Annotated[int, Field(strict=True, gt=0, le=MAX_LAYERS)]
    weights_bytes: Size
    kv_heads: Size = 0
    key_length: Size = 0
    value_length: Size = 0
    window: Size = 0
    state_bytes: Size = 0


@dataclass(frozen=True)
class GgufShape:
    """The memory shape of a GGUF file; bytes are those of its tensors.

    `embeddings_bytes` stay on the host, `output_bytes` go with the last layer; where the embeddings
    serve as output (`tied`), a GPU holds a copy of them. `feed_forward_length` is the widest of any
    dense block (0: none), `experts_*` are of a mixture of experts. `pooling` is how the numbers of
    a text's tokens become one vector ("": the file does not say), and an `encoder` reads a text at
    once and keeps nothing of it.
    """

    __pydantic_config__ = _FORBID

    architecture: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    context_length: Positive
    embedding_length: Annotated[int, Field(strict=True, gt=0, le=2**22)]
    vocabulary_size: Annotated[int, Field(strict=True, gt=0, le=2**24)]
    heads: Annotated[int, Field(strict=True, gt=0, le=2**16)]
    feed_forward_length: Size
    embeddings_bytes: Size
    output_bytes: Size
    layers: tuple[GgufLayers, ...]
    tied: bool = False
    experts: Size = 0
    experts_used: Size = 0
    experts_length: Size = 0
    pooling: Literal["", "none", "mean", "cls", "last", "rank"] = ""
    encoder: bool = False

    def __post_init__(self) -> None:
        if not 1 <= sum(group.count for group in self.layers) <= MAX_LAYERS:
            raise ValueError(f"layers: none, or more than any model has ({MAX_LAYERS})")

    @cached_property
    def every_layer(self) -> tuple[GgufLayers, ...]:
        """The layers one by one, in order."""
        return tuple(group for group in self.layers for _ in range(group.count))


def gguf_shape(header: Header, where: str) -> GgufShape:
    """The shape of a file from its header; the ValueError names what is missing or wrong."""
    keys = _Keys(header.metadata, where)
    count = keys.count("block_count", most=MAX_LAYERS)
    _check_blocks(header.tensors, count, where)
    own = [0] * count
    ends = {"embeddings": 0, "output": 0}
    for tensor in header.tensors:
        block = _BLOCK.match(tensor.name)
        if block and int(block[1]) < count:
            own[int(block[1])] += tensor.bytes
        elif tensor.name.startswith(_ON_THE_HOST):
            ends["embeddings"] += tensor.bytes
        elif tensor.name.startswith("rope_"):
            # Small, and loaded with the first layer.
            own[0] += tensor.bytes
        else:
            ends["output"] += tensor.bytes
    tied, table = _output(header.tensors)
    layers = [
        GgufLayers(1, weights, **kept)
        for weights, kept in zip(own, _layer_states(keys, count), strict=True)
    ]
    return GgufShape(
        architecture=keys.architecture,
        context_length=keys.count("context_length"),
        embedding_length=keys.count("embedding_length"),
        vocabulary_size=_vocabulary(keys, table),
        heads=max(keys.by_layer("attention.head_count", count)) or 1,
        feed_forward_length=max(keys.by_layer("feed_forward_length", count)),
        embeddings_bytes=ends["embeddings"],
        output_bytes=ends["output"],
        layers=tuple(_run_length_encoded(layers)),
        tied=tied,
        experts=keys.count("expert_count", default=0),
        experts_used=max(keys.by_layer("expert_used_count", count)),
        experts_length=keys.count("expert_feed_forward_length", default=0),
        pooling=_pooling(keys),
        encoder=keys.encoder,
    )


def _pooling(keys: "_Keys") -> Any:
    """The pooling by its name in llama.cpp."""
    if f"{keys.architecture}.pooling_type" not in keys.metadata:
        return ""
    return _POOLINGS[keys.count("pooling_type", default=0, most=len(_POOLINGS) - 1)]


def _check_blocks(tensors: tuple[Tensor, ...], count: int, where: str) -> None:
    blocks = {int(block[1]) for block in (_BLOCK.match(one.name) for one in tensors) if block}
    missing = min(set(range(count)) - blocks, default=None)
    if missing is not None:
        raise ValueError(
            f"{where}: block {missing} of {count} has no tensors: the file is incomplete; "
            "download it again"
        )


def _run_length_encoded(layers: list[GgufLayers]) -> Iterator[GgufLayers]:
    for layer, equal in groupby(layers):
        made = {name: getattr(layer, name) for name in GgufLayers.__dataclass_fields__}
        yield GgufLayers(**made | {"count": len(list(equal))})


def _output(tensors: tuple[Tensor, ...]) -> tuple[bool, Tensor | None]:
    """Whether the embeddings serve as output too, and the tensor of the vocabulary."""
    named = {tensor.name: tensor for tensor in tensors}
    table = named.get("token_embd.weight")
    return table is not None and "output.weight" not in named, table


def _vocabulary(keys: "_Keys", table: Tensor | None) -> int:
    tokens = keys.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Length):
        return tokens.count
    if table is not None and len(table.sizes) > 1:
        return table.sizes[1]
    return keys.count("vocab_size")


def _layer_states(keys: "_Keys", count: int) -> Iterator[dict[str, int]]:
    """The KV cache and state fields of each layer."""
    heads = max(keys.by_layer("attention.head_count", count)) or 1
    kv_heads = keys.by_layer("attention.head_count_kv", count, default=heads)
    size = keys.count("embedding_length") // heads
    full = _lengths(keys, "", size, size)
    windowed = _lengths(keys, "_swa", *full)
    windows = _windows(keys, count)
    recurrent = _recurrent(keys, count, kv_heads)
    # The last blocks predict further tokens; llama-server does not load them by default.
    until = count - keys.count("nextn_predict_layers", default=0)
    shared = keys.count("attention.shared_kv_layers", default=0)
    until = 0 if keys.encoder else until
    until = min(until, _FIRST_SHARED_LAYER.get(keys.architecture, count - shared))
    for layer in range(count):
        if recurrent[layer]:
            yield {"state_bytes": 4 * _state_numbers(keys)}
        elif layer >= until or not kv_heads[layer]:
            yield {}
        else:
            key, value = windowed if windows[layer] else full
            yield {
                "kv_heads": kv_heads[layer],
                "key_length": key,
                "value_length": value,
                "window": windows[layer],
            }


def _lengths(keys: "_Keys", suffix: str, key: int, value: int) -> tuple[int, int]:
    """Lengths of a head's key and value; latent attention keeps keys alone."""
    if keys.count("attention.key_length_mla", default=0):
        return keys.count(f"attention.key_length{suffix}", default=key), 0
    return (
        keys.count(f"attention.key_length{suffix}", default=key),
        keys.count(f"attention.value_length{suffix}", default=value),
    )


def _windows(keys: "_Keys", count: int) -> list[int]:
    """The sliding window of each layer in tokens; 0 for full attention."""
    kind = keys.architecture
    window = keys.count("attention.sliding_window", default=_DEFAULT_WINDOW.get(kind, 0))
    known = kind in _WINDOWS or kind in _PATTERN_ALONE
    if not window or not known or count < _MIN_LAYERS.get(kind, 0):
        return [0] * count
    pattern = keys.metadata.get(f"{kind}.attention.sliding_window_pattern")
    if isinstance(pattern, tuple) and len(pattern) == count:
        return [window if one else 0 for one in pattern]
    every, first = _WINDOWS.get(kind, (0, False))
    if isinstance(pattern, int) and not isinstance(pattern, bool):
        every = pattern
    full = 0 if first else every - 1
    return [0 if every and layer % every == full else window for layer in range(count)]


def _recurrent(keys: "_Keys", count: int, kv_heads: list[int]) -> list[bool]:
    """Which layers keep a state of fixed size instead of keys and values."""
    if keys.architecture in _HYBRID_INTERVAL:
        every = keys.count("full_attention_interval", default=4)
        return [(layer + 1) % every != 0 for layer in range(count)]
    if not keys.count("ssm.state_size", default=0) and not keys.count(
        "shortconv.l_cache", default=0
    ):
        return [False] * count
    return [not heads for heads in kv_heads]


def _state_numbers(keys: "_Keys") -> int:
    """Numbers of a request's state in a recurrent layer: of the convolution and of the state."""
    short = keys.count("shortconv.l_cache", default=0)
    if short:
        return keys.count("embedding_length") * (short - 1)
    inner = keys.count("ssm.inner_size", default=0)
    state, kernel = (
        keys.count("ssm.state_size", default=0),
        keys.count("ssm.conv_kernel", default=1),
    )
    groups = keys.count("ssm.group_count", default=0)
    return (kernel - 1) * (inner + 2 * groups * state) + state * inner


class _Keys:
    """The metadata of a file's own architecture."""

    def __init__(self, metadata: Mapping[str, Any], where: str) -> None:
        self.metadata, self._where = metadata, where
        kind = metadata.get("general.architecture")
        if not isinstance(kind, str) or not kind:
            raise ValueError(
                f"{where}: general.architecture is missing: it is no language model; name another"
            )
        self.architecture = kind

    @property
    def encoder(self) -> bool:
        """Whether tokens see those after them, too."""
        return self.metadata.get(f"{self.architecture}.attention.causal") is False

    def count(self, name: str, *, default: int | None = None, most: int = 2**31) -> int:
        """A number of the architecture; the largest if it differs by layer."""
        key = f"{self.architecture}.{name}"
        value = self.metadata.get(key, default)
        if isinstance(value, tuple) and value:
            value = max(value)
        least = 0 if default is not None else 1
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(
                f"{self._where}: {key} is {short_repr(value)}; it must be from {least} to {most}"
            )
        return value

    def by_layer(self, name: str, layers: int, *, default: int = 0) -> list[int]:
        """A number for each layer; the same for all if the file has only one."""
        value = self.metadata.get(f"{self.architecture}.{name}")
        if isinstance(value, tuple) and len(value) >= layers:
            found = [one for one in value[:layers] if isinstance(one, int) and one >= 0]
            if len(found) == layers:
                return found
        return [self.count(name, default=default)] * layers
