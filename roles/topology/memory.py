"""Where a GPU's memory goes when vLLM serves a model in a given shape.

Source: vLLM 0.33's memory profile (`v1/worker/gpu_worker.py`, `engine/arg_utils.py`), summed up as
KV = total × utilization − weights − sampler − max(forward, sampler's transients) − graphs − work.
"""

import math

from roles.hardware import Gpu
from roles.models import Model
from roles.topology.plan import MemorySum, Shape

GIB = 2**30
# What CUDA itself keeps of the total that the driver reports.
DRIVER_GIB = 0.5
# Alignment and buffers on top of the weights' own bytes.
WEIGHTS_MARGIN = 1.01
KV_BLOCK_TOKENS = 16


def batch_defaults(gpu: Gpu) -> tuple[int, int]:
    """vLLM's defaults for a GPU: (tokens a step, requests at once)."""
    memory_gib = gpu.memory_mib / 1024
    if memory_gib >= 160:
        return 16384, 1024
    if memory_gib >= 70 and "a100" not in gpu.name.lower():
        return 8192, 1024
    return 2048, 256


def kv_bytes_per_token(model: Model, shape: Shape) -> float:
    """Bytes of KV cache that one token takes on the fullest GPU of a replica.

    KV heads are split over TP and copied where TP exceeds them; layers are split over PP.
    """
    heads = max(1, model.kv_heads / shape.tensor_parallel)
    layers = math.ceil(model.layers / shape.pipeline_parallel)
    return layers * 2 * heads * model.head_dim * model.kv_element_bytes


def kv_needed_tokens(max_model_len: int, min_concurrency: int) -> int:
    """Tokens of KV cache for `min_concurrency` requests of `max_model_len`, in whole blocks."""
    blocks = math.ceil(max_model_len / KV_BLOCK_TOKENS)
    return min_concurrency * blocks * KV_BLOCK_TOKENS


def memory_sum(
    model: Model, gpu: Gpu, shape: Shape, utilization: float, needed_tokens: int
) -> MemorySum:
    """The memory of the fullest GPU of a replica under `shape`; see MemorySum."""
    tokens, requests = batch_defaults(gpu)
    tp = shape.tensor_parallel
    total = gpu.memory_mib / 1024
    usable = total - DRIVER_GIB
    stage = math.ceil(model.layers / shape.pipeline_parallel) / model.layers
    weights = model.weight_bytes * stage / tp * WEIGHTS_MARGIN / GIB
    sampler = requests * model.vocab_size * (4 + 1 / 8) / GIB
    sampling = requests * model.vocab_size * (10 if tp == 1 else 14)
    qkv = (model.attention_heads + 2 * model.kv_heads) * model.head_dim
    widest = max(6 * model.intermediate_size / tp, 2 * qkv / tp + 2 * model.hidden_size)
    activations = max(tokens * (4 * model.hidden_size + widest), sampling) / GIB
    graphs = 0.6 if requests <= 256 else 1.0
    workspace = 0.4 if tp == 1 else 0.5
    headroom = usable * (1 - utilization)
    left = usable - headroom - weights - sampler - activations - graphs - workspace
    per_token = kv_bytes_per_token(model, shape)
    return MemorySum(
        total_gib=total,
        driver_gib=DRIVER_GIB,
        headroom_gib=headroom,
        weights_gib=weights,
        sampler_gib=sampler,
        activations_gib=activations,
        graphs_gib=graphs,
        workspace_gib=workspace,
        kv_cache_gib=left,
        kv_needed_gib=needed_tokens * per_token / GIB,
        kv_tokens=max(0, int(left * GIB / per_token)),
    )
