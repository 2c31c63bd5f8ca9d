"""The pages and groups of a KV cache: the bytes of a block, and the blocks of a request.

Source: vLLM 0.33 `v1/kv_cache_interface.py`, `v1/core/kv_cache_planning.py` and
`platforms/interface.py` (hybrid models). Every group has pages of one size, so a model whose layers
differ pays for its largest group.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from roles.models.model import Attention, Layer, Model, Recurrent

CacheKind = Literal["full", "sliding", "chunked", "state"]
DEFAULT_BLOCK_TOKENS = 16
# Sparse MLA keeps a latent of 512 FP8 numbers, 4 scales and 64 rotary numbers in 16 bits.
_SPARSE_MLA_BYTES = {"fp8": 656, "nvfp4": 352}
# In hybrids with MLA the tokens of a block are a multiple of 128.
_MLA_HYBRID_ALIGNMENT = 128
# A group has as many layers as the rarest kind, or as the commonest if that is below this ratio.
_GROUP_SIZE_RATIO = 1.5


@dataclass(frozen=True)
class CacheOptions:
    """The engine's options for its KV cache; the defaults are vLLM 0.33's.

    `block_size` is in tokens, None for what the attention backend prefers. `hybrid_manager` false
    keeps every token of sliding windows too (vLLM before 0.9, and if it is switched off).
    `in_flight_tokens` are what steps under way may hold beyond a window.
    """

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    kv_cache_dtype: str = "auto"
    block_size: int | None = None
    compute_capability: float | None = None
    prefix_caching: bool = True
    speculative_tokens: int = 0
    hybrid_manager: bool = True
    decode_context_parallel_size: int = 1
    in_flight_tokens: int = 16384


@dataclass(frozen=True)
class Cache:
    """The KV cache of one layer: pages of `page_bytes` for `block_tokens` tokens each."""

    kind: CacheKind
    page_bytes: int
    block_tokens: int
    window: int = 0

    def blocks(self, max_model_len: int, options: CacheOptions) -> int:
        """The maximum number of blocks of a request with `max_model_len` tokens."""
        if self.kind == "state":
            spare = 2 if options.prefix_caching else 1
            return spare + options.speculative_tokens
        if self.kind == "sliding":
            max_tokens = min(self.window - 1 + options.in_flight_tokens, max_model_len)
            return math.ceil(max_tokens / self.block_tokens) + 1
        if self.kind == "chunked":
            max_tokens = min(self.window + options.in_flight_tokens, max_model_len)
            return math.ceil(max_tokens / self.block_tokens)
        own = math.ceil(max_model_len / options.decode_context_parallel_size)
        return math.ceil(own / self.block_tokens)


@dataclass(frozen=True)
class CacheGroup:
    """Layers, by index, that share a block table."""

    cache: Cache
    layers: tuple[int, ...]


def default_block_tokens(model: Model, options: CacheOptions) -> int:
    """Tokens of a block that the attention backend prefers (`platforms/cuda.py`)."""
    if options.block_size:
        return options.block_size
    if model.is_mla and model.is_sparse:
        return 64
    blackwell = options.compute_capability is not None and 10 <= options.compute_capability < 12
    return 32 if model.is_mla and blackwell else DEFAULT_BLOCK_TOKENS


def token_bytes(model: Model, attention: Attention, options: CacheOptions) -> float:
    """Bytes that one layer keeps of one token on one GPU; ValueError for an unknown dtype."""
    dtype = options.kv_cache_dtype
    if dtype == "auto" and model.quantization and model.quantization.kv_cache_dtype:
        dtype = model.quantization.kv_cache_dtype
    heads = max(1, attention.kv_heads // options.tensor_parallel_size)
    numbers = attention.head_size + attention.value_head_size
    if attention.kind == "mla" and model.is_sparse:
        for name, count in _SPARSE_MLA_BYTES.items():
            if dtype.startswith(name):
                return count + attention.index_bytes
    return heads * _head_bytes(dtype, numbers, model.dtype_bytes) + attention.index_bytes


def _head_bytes(dtype: str, numbers: int, model_bytes: int) -> float:
    """Bytes of the keys and values of one head and token (`config/cache.py` CacheDType)."""
    if dtype in ("auto", "bfloat16", "float16", "half"):
        return numbers * model_bytes
    if dtype == "float32":
        return numbers * 4
    if dtype.endswith("_per_token_head"):
        # A float32 scale for the keys and one for the values.
        return numbers * (0.5 if dtype.startswith("int4") else 1) + 8
    if dtype.startswith("nvfp4"):
        return numbers / 2 + numbers / 16
    if dtype.startswith("fp8") or dtype == "int8":
        return numbers
    raise ValueError(
        f"unknown kv_cache_dtype {dtype!r}: use auto, fp8, fp8_e4m3, fp8_e5m2, nvfp4, "
        "fp8_per_token_head, int8_per_token_head or int4_per_token_head"
    )


def state_bytes(model: Model, state: Recurrent, options: CacheOptions) -> int:
    """Bytes of a recurrent layer's state on one GPU."""
    tensor = options.tensor_parallel_size
    channels = state.conv_channels
    if state.kind == "mamba2" and state.key_heads % tensor:
        # Groups that cannot be divided are copied: each GPU has one.
        each = (channels - state.state_elements // _mamba2_states(state)) // state.key_heads
        channels += (tensor - state.key_heads) * each
    rows = state.conv_kernel - 1 + options.speculative_tokens
    conv = rows * (channels // tensor) * model.dtype_bytes
    return conv + state.state_elements // tensor * state.state_bytes


def _mamba2_states(state: Recurrent) -> int:
    """State size of Mamba 2, from channels = inner + 2 x groups x states."""
    # inner x states = state_elements; solve for states.
    a, b, c = 2 * state.key_heads, -state.conv_channels, state.state_elements
    root = math.isqrt(b * b - 4 * a * c)
    low, high = (-b - root) // (2 * a), (-b + root) // (2 * a)
    return low if low and state.state_elements % low == 0 and low <= high else high


def layer_caches(model: Model, options: CacheOptions) -> dict[int, Cache]:
    """The cache of each layer, by index; layers without a cache are left out."""
    block = _block_tokens(model, options)
    # Most layers are the same object.
    made = {id(layer): layer for layer in model.layers}
    known = {key: _layer_cache(model, layer, block, options) for key, layer in made.items()}
    found = ((index, known[id(layer)]) for index, layer in enumerate(model.layers))
    return {index: cache for index, cache in found if cache is not None}


def _layer_cache(model: Model, layer: Layer, block: int, options: CacheOptions) -> Cache | None:
    mixer = layer.mixer
    if isinstance(mixer, Attention) and layer.own_kv:
        return _attention_cache(model, mixer, block, options)
    if isinstance(mixer, Recurrent):
        return Cache("state", state_bytes(model, mixer, options), block)
    return None


def _attention_cache(model: Model, mixer: Attention, block: int, options: CacheOptions) -> Cache:
    page = math.ceil(block * token_bytes(model, mixer, options))
    if mixer.kind in ("sliding", "chunked") and options.hybrid_manager:
        kind: CacheKind = "sliding" if mixer.kind == "sliding" else "chunked"
        return Cache(kind, page, block, mixer.window)
    return Cache("full", page, block)


def _block_tokens(model: Model, options: CacheOptions) -> int:
    """Tokens of a block, so many that a page can hold a recurrent layer's state."""
    block = default_block_tokens(model, options)
    states = [
        state_bytes(model, layer.mixer, options)
        for layer in model.layers
        if isinstance(layer.mixer, Recurrent)
    ]
    attentions = [
        layer.mixer for layer in model.layers if isinstance(layer.mixer, Attention) and layer.own_kv
    ]
    if not states or not attentions:
        return block
    align = max(block, _MLA_HYBRID_ALIGNMENT) if model.is_mla else block
    token = token_bytes(model, attentions[0], options)
    return max(block, align * math.ceil(max(states) / (align * token)))


def cache_groups(model: Model, options: CacheOptions) -> tuple[CacheGroup, ...]:
    """The groups of a model's layers, with pages of one size; empty without any cache.

    A state is padded to the page size; a smaller attention page gets more tokens, or padding.
    """
    caches = layer_caches(model, options)
    if not caches:
        return ()
    kinds = {(cache.kind, cache.block_tokens, cache.window) for cache in caches.values()}
    if len(kinds) == 1:
        # One kind: one group, whose layers may differ in size.
        return (CacheGroup(next(iter(caches.values())), tuple(caches)),)
    page = max(cache.page_bytes for cache in caches.values())
    caches = {index: _with_page_bytes(cache, page) for index, cache in caches.items()}
    buckets: dict[Cache, list[int]] = {}
    for index, cache in caches.items():
        buckets.setdefault(cache, []).append(index)
    counts = [len(layers) for layers in buckets.values()]
    size = max(counts) if max(counts) < min(counts) * _GROUP_SIZE_RATIO else min(counts)
    groups: list[CacheGroup] = []
    for cache, layers in buckets.items():
        parts = math.ceil(len(layers) / size)
        groups += [CacheGroup(cache, tuple(layers[i::parts])) for i in range(parts)]
    return tuple(groups)


def _with_page_bytes(cache: Cache, page: int) -> Cache:
    if cache.kind != "state" and page % cache.page_bytes == 0:
        more = page // cache.page_bytes
        return replace(cache, page_bytes=page, block_tokens=cache.block_tokens * more)
    return replace(cache, page_bytes=page)


def bytes_per_block(
    model: Model, groups: Sequence[CacheGroup], stages: Sequence[range], options: CacheOptions
) -> tuple[int, ...]:
    """Bytes of one block on a GPU of each pipeline stage: those of its fullest group."""
    if len(groups) == 1:
        caches = layer_caches(model, options)
        own = set(groups[0].layers)
        return tuple(sum(caches[i].page_bytes for i in stage if i in own) for stage in stages)
    return tuple(
        max(
            (group.cache.page_bytes * sum(i in stage for i in group.layers) for group in groups),
            default=0,
        )
        for stage in stages
    )
