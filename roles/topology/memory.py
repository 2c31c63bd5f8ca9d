"""Where a GPU's memory goes when vLLM serves a model in a given shape.

Source: vLLM 0.33's memory profile (`v1/worker/gpu_worker.py`, `engine/arg_utils.py`), summed up as
KV = total × utilization − weights − sampler − max(forward, sampler's transients) − graphs − work.
"""

import math
import re
from dataclasses import dataclass

from roles.hardware import Gpu
from roles.models import Model
from roles.topology.plan import MemorySum, Shape

GIB = 2**30
# What CUDA itself keeps of the total that the driver reports.
DRIVER_GIB = 0.5
# Alignment and buffers on top of the weights' own bytes.
WEIGHTS_MARGIN = 1.01
KV_BLOCK_TOKENS = 16
# Embeddings are not quantised; where other weights are, this is an upper bound.
WEIGHT_ELEMENT_BYTES = 2
_LARGE_GRAPHS = re.compile(r"\bG?B[23]00\b", re.IGNORECASE)
_SMALL_BATCH = re.compile(r"A100|\bGB10\b", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """What a service asks of an engine, as far as it takes memory; None is vLLM's own default."""

    utilization: float = 0.92
    kv_tokens: int = 0
    step_tokens: int | None = None
    requests: int | None = None
    eager: bool = False
    kv_element_bytes: float | None = None


def batch_defaults(gpu: Gpu) -> tuple[int, int]:
    """vLLM's defaults for a GPU: (tokens a step, requests at once).

    A100 and GB10 count as small whatever memory they have (`engine/arg_utils.py`).
    """
    memory_gib = gpu.memory_mib / 1024
    small = bool(_SMALL_BATCH.search(gpu.name))
    if memory_gib >= 160 and not small:
        return 16384, 1024
    if memory_gib >= 70 and not small:
        return 8192, 1024
    return 2048, 256


def batch(gpu: Gpu, asked: Asked) -> tuple[int, int]:
    """Tokens a step and requests at once; vLLM lowers its own number of requests to the tokens."""
    default_tokens, default_requests = batch_defaults(gpu)
    tokens = asked.step_tokens or default_tokens
    return tokens, asked.requests or min(default_requests, tokens)


def kv_bytes_per_token(model: Model, shape: Shape, element_bytes: float | None = None) -> float:
    """Bytes of KV cache that one token takes on the fullest GPU of a replica.

    KV heads are split over TP and copied where TP exceeds them; layers are split over PP.
    """
    heads = max(1, model.kv_heads / shape.tensor_parallel)
    layers = math.ceil(model.layers / shape.pipeline_parallel)
    return layers * 2 * heads * model.head_dim * (element_bytes or model.kv_element_bytes)


def kv_needed_tokens(max_model_len: int, min_concurrency: int) -> int:
    """Tokens of KV cache for `min_concurrency` requests of `max_model_len`, in whole blocks."""
    blocks = math.ceil(max_model_len / KV_BLOCK_TOKENS)
    return min_concurrency * blocks * KV_BLOCK_TOKENS


def weight_bytes(model: Model, shape: Shape) -> float:
    """Bytes of weights on the fullest GPU of a replica.

    The embedding stays whole on the first stage and the head on the last, so a stage has its share
    of the layers and one of them; taking but one of the two out of the total is an upper bound.
    """
    tp, pp = shape.tensor_parallel, shape.pipeline_parallel
    layers = math.ceil(model.layers / pp)
    table = model.padded_vocab_size * model.hidden_size * WEIGHT_ELEMENT_BYTES
    # Declared sizes may contradict each other.
    table = min(table, model.weight_bytes)
    stage = (model.weight_bytes - table) * layers / model.layers + table
    # Each GPU has at least one KV head: those beyond its even share are copies.
    copied_heads = max(0.0, 1 - model.kv_heads / tp)
    copies = layers * 2 * copied_heads * model.head_dim * model.hidden_size * WEIGHT_ELEMENT_BYTES
    return stage / tp + copies


def activation_bytes(model: Model, shape: Shape, tokens: int, requests: int) -> float:
    """The largest transient of a step: the forward pass or the sampler, whichever is more."""
    tp = shape.tensor_parallel
    qkv = (model.attention_heads + 2 * model.kv_heads) * model.head_dim
    widest = max(6 * model.intermediate_size / tp, 2 * qkv / tp + 2 * model.hidden_size)
    sampling = min(requests, tokens) * model.vocab_size * (10 if tp == 1 else 14)
    return max(tokens * (4 * model.hidden_size + widest), sampling)


def graphs_gib(gpu: Gpu, asked: Asked, requests: int) -> float:
    """Memory of the captured CUDA graphs.

    SM100 and SM103 capture up to 1024 requests instead of 512: 2.0 GiB, an estimate from vLLM
    0.33's list of capture sizes (`config/vllm.py`) and the pools that its logs report elsewhere
    (0.4-0.6 GiB for up to 512); none was measured there.
    """
    if asked.eager:
        return 0.0
    if _LARGE_GRAPHS.search(gpu.name):
        return 2.0
    return 0.6 if requests <= 256 else 1.0


def memory_sum(model: Model, gpu: Gpu, shape: Shape, asked: Asked) -> MemorySum:
    """The memory of the fullest GPU of a replica under `shape`; see MemorySum."""
    tokens, requests = batch(gpu, asked)
    total = gpu.memory_mib / 1024
    usable = total - DRIVER_GIB
    taken = {
        "headroom_gib": usable * (1 - asked.utilization),
        "weights_gib": weight_bytes(model, shape) * WEIGHTS_MARGIN / GIB,
        "sampler_gib": requests * model.vocab_size * (4 + 1 / 8) / GIB,
        "activations_gib": activation_bytes(model, shape, tokens, requests) / GIB,
        "graphs_gib": graphs_gib(gpu, asked, requests),
        "workspace_gib": 0.4 if shape.tensor_parallel == 1 else 0.5,
    }
    left = usable - sum(taken.values())
    per_token = kv_bytes_per_token(model, shape, asked.kv_element_bytes)
    return MemorySum(
        total_gib=total,
        driver_gib=DRIVER_GIB,
        kv_cache_gib=left,
        kv_needed_gib=asked.kv_tokens * per_token / GIB,
        kv_tokens=max(0, int(left * GIB / per_token)),
        **taken,
    )
