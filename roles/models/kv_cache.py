"""The number of tokens that a KV cache holds, as vLLM 0.33 computes and prints it.

Source: vLLM 0.33 `v1/core/kv_cache_utils.py` (get_kv_cache_capacity,
get_max_concurrency_for_kv_cache_config) and `config/vllm.py` (max_in_flight_tokens).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from roles.models.kv_groups import CacheGroup, CacheOptions, bytes_per_block, cache_groups
from roles.models.model import Model
from roles.models.weights import stage_layers

# Before these versions vLLM computed differently, as their logs show.
_HYBRID_MANAGER = (0, 9)
_STATES_CACHED = (0, 12)
_TOKENS_BY_CONCURRENCY = (0, 21)
_LATEST = (0, 33)


@dataclass(frozen=True)
class KvCapacity:
    """The capacity of a KV cache.

    `tokens` and `max_concurrency` are what vLLM prints: requests of the longest allowed length, and
    their tokens. `block_tokens` is the smallest block of any group. `bytes_per_token` is what a
    further token of a long request takes on each GPU. `minimum_bytes` is what one request of that
    length needs: with less on a GPU vLLM does not start.
    """

    num_blocks: int
    block_tokens: int
    tokens: int
    max_concurrency: float
    bytes_per_token: float
    minimum_bytes: int
    bytes_per_block: int
    blocks_per_request: int


def kv_tokens(
    model: Model,
    available_bytes: int | Sequence[int],
    *,
    max_model_len: int,
    tensor_parallel_size: int = 1,
    pipeline_parallel_size: int = 1,
    kv_cache_dtype: str = "auto",
    max_num_batched_tokens: int = 8192,
    block_size: int | None = None,
    compute_capability: float | None = None,
    prefix_caching: bool = True,
    async_scheduling: bool = True,
    speculative_tokens: int = 0,
    decode_context_parallel_size: int = 1,
    hybrid_manager: bool = True,
    engine_version: tuple[int, ...] = _LATEST,
) -> KvCapacity:
    """The capacity of a KV cache of `available_bytes` on each GPU of a replica.

    With pipeline parallel it may be one number for each stage: the stage with the fewest blocks
    counts. `engine_version` is vLLM's, such as (0, 10, 2): older ones computed differently.
    ValueError for an unknown `kv_cache_dtype`, for more stages than layers, and where
    `max_model_len` is below 1.
    """
    if max_model_len < 1:
        raise ValueError(f"max_model_len is {max_model_len}: it must be at least 1")
    steps = pipeline_parallel_size + async_scheduling
    options = CacheOptions(
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=pipeline_parallel_size,
        kv_cache_dtype=kv_cache_dtype,
        block_size=block_size,
        compute_capability=compute_capability,
        prefix_caching=prefix_caching,
        speculative_tokens=speculative_tokens,
        hybrid_manager=hybrid_manager,
        decode_context_parallel_size=decode_context_parallel_size,
        in_flight_tokens=steps * max_num_batched_tokens,
    )
    return _capacity(
        model,
        available_bytes,
        max_model_len,
        _options_of_version(options, max_num_batched_tokens, engine_version),
        engine_version,
    )


def _options_of_version(
    options: CacheOptions, step_tokens: int, version: tuple[int, ...]
) -> CacheOptions:
    """The options as an older vLLM used them."""
    if version < _TOKENS_BY_CONCURRENCY:
        options = replace(options, in_flight_tokens=step_tokens)
    if version < _STATES_CACHED:
        options = replace(options, prefix_caching=False)
    if version < _HYBRID_MANAGER:
        options = replace(options, hybrid_manager=False)
    return options


def _capacity(
    model: Model,
    available_bytes: int | Sequence[int],
    max_model_len: int,
    options: CacheOptions,
    engine_version: tuple[int, ...],
) -> KvCapacity:
    """The capacity under options that are already adapted to the version."""
    groups, sizes = _pages(model, options)
    if not groups:
        return KvCapacity(0, 1, 0, math.inf, 0.0, 0, 0, 0)
    stages = options.pipeline_parallel_size
    given = [available_bytes] * stages if isinstance(available_bytes, int) else available_bytes
    needed = sum(group.cache.blocks(max_model_len, options) for group in groups)
    block_bytes = max(sizes)
    blocks = min(max(0, bytes // size) for bytes, size in zip(given, sizes, strict=True) if size)
    concurrency = blocks / needed
    block_tokens = min(group.cache.block_tokens for group in groups)
    if engine_version < _TOKENS_BY_CONCURRENCY:
        tokens = blocks // len(groups) * block_tokens * options.decode_context_parallel_size
    else:
        tokens = int(concurrency * max_model_len)
    return KvCapacity(
        num_blocks=blocks,
        block_tokens=block_tokens,
        tokens=tokens,
        max_concurrency=concurrency,
        bytes_per_token=_bytes_per_token(groups, block_bytes, options),
        minimum_bytes=block_bytes * (needed + 1),
        bytes_per_block=block_bytes,
        blocks_per_request=needed,
    )


def _pages(model: Model, options: CacheOptions) -> tuple[tuple[CacheGroup, ...], tuple[int, ...]]:
    """The groups, and the bytes of a block on a GPU of each stage.

    Cached in the model: a plan needs the same ones repeatedly.
    """
    key = ("kv cache", options)
    if key not in model.memo:
        groups, stages = cache_groups(model, options), options.pipeline_parallel_size
        parts = [stage_layers(model, stages, stage) for stage in range(stages)]
        model.memo[key] = (groups, bytes_per_block(model, groups, parts, options))
    return cast(tuple[tuple[CacheGroup, ...], tuple[int, ...]], model.memo[key])


def _bytes_per_token(
    groups: tuple[CacheGroup, ...], block_bytes: int, options: CacheOptions
) -> float:
    """Bytes of a further token of a long request: only full attention still grows."""
    growing = [group.cache.block_tokens for group in groups if group.cache.kind == "full"]
    share = sum(1 / tokens for tokens in growing)
    return block_bytes * share / options.decode_context_parallel_size
