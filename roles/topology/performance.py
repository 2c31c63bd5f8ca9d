"""A roofline estimate of how fast one replica serves: prefill, decode, and both together.

Every operation takes the longer of reading its bytes and computing its FLOPs, at a global part
of the card's peak rates. Weights of weight-only formats are converted first. Each matrix adds a
constant for its kernels, and tensor parallelism two all-reduces a layer; a step with a prompt runs
without a whole CUDA graph. The constants are the same for every card and model. It is an estimate:
no request was measured.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from roles.engine.calibration import (
    CALIBRATION,
    Calibration,
    Spread,
)
from roles.plan import Bound, Estimate
from roles.topology.collectives import all_reduce_s, hand_over_s
from roles.topology.costs import Compute, GpuRates, ModelCosts, ReplicaLinks, Workload

# Activations travel between GPUs in 16 bits, whatever the weights are.
ACTIVATION_BYTES = 2


# Launching a layer's kernels one by one from Python; a rough figure, for no row is without CUDA
# graphs.
EAGER_LAYER_US = 200.0
# Columns that a fused MoE kernel computes at once by default (vLLM's fused_moe.py, BLOCK_SIZE_N).
EXPERT_TILE = 64
# Tokens choose experts unevenly and alike; the exponent is a round figure.
EXPERT_SKEW = 0.9


class _Step(NamedTuple):
    """Seconds of one forward pass, by what they are spent on."""

    weights: float
    kv: float
    compute: float
    links: float
    overhead: float

    @property
    def total(self) -> float:
        return sum(self)


@dataclass(frozen=True)
class _Replica:
    """The values that are constant over the steps of one estimate."""

    costs: ModelCosts
    rates: GpuRates
    links: ReplicaLinks
    gpus: int
    stages: int
    calibration: Calibration

    def flops_per_s(self, compute: Compute) -> float:
        return (self.rates.tflops(compute) or self.rates.bf16_tflops) * 1e12 * self.gpus

    def conversion_s(self, parameters: float, compute: Compute) -> float:
        """Seconds to convert weights that the card does not multiply as they are."""
        if self.rates.tflops(compute) is not None:
            return 0.0
        return parameters * self.calibration.conversion_ps * 1e-12 / self.gpus

    @property
    def bytes_per_s(self) -> float:
        return self.rates.memory_bandwidth_gb_s * 1e9 * self.gpus


# Hosts that differ in their GPUs' memory alone have the same estimates where no request waits.
@lru_cache(maxsize=16384)
def estimate(
    costs: ModelCosts,
    rates: GpuRates,
    links: ReplicaLinks,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    workload: Workload,
    calibration: Calibration = CALIBRATION,
) -> Estimate:
    """The estimate of one replica of TP×PP GPUs under its load, whether it fits or not.

    A request's time is its prefill and then its output tokens. While it decodes, the prompts of the
    other requests arrive one after another and lengthen its steps (chunked prefill: a step holds
    the decoding requests and a prompt). Pipeline stages work on different parts of the batch at
    once, so a pass goes through all stages with one part; with fewer requests than stages some
    stages idle.

    Raises ValueError for sizes below 1 and for NVLink without its rate.
    """
    if tensor_parallel_size < 1 or pipeline_parallel_size < 1:
        raise ValueError("tensor and pipeline parallel sizes must be at least 1")
    replica = _Replica(
        costs, rates, links, tensor_parallel_size, pipeline_parallel_size, calibration
    )
    running = min(workload.concurrency, workload.batch_limit or math.inf)
    batch = max(1.0, running / pipeline_parallel_size)
    decode = _decode_step(replica, workload, batch)
    first_token_s = _first_token_s(replica, workload, batch)
    output = workload.output_tokens
    requests_per_s = running / (first_token_s + output * decode.total)
    waiting_s = (workload.concurrency - running) / requests_per_s
    tokens_per_s = requests_per_s * output
    spread = _spread(replica, waits=running < workload.concurrency)
    return Estimate(
        tokens_per_s=tokens_per_s,
        tokens_per_s_per_gpu=tokens_per_s / (tensor_parallel_size * pipeline_parallel_size),
        requests_per_s=requests_per_s,
        ttft_ms=(waiting_s + first_token_s) * 1e3,
        tpot_ms=decode.total * 1e3,
        bound_by=_bound(decode),
        tokens_per_s_low=spread.low * tokens_per_s,
        tokens_per_s_high=spread.high * tokens_per_s,
    )


def _spread(replica: _Replica, waits: bool) -> Spread:
    """How far measurements lie from the estimate."""
    spreads = replica.calibration.spreads
    over_pcie = replica.gpus > 1 and replica.links.kind == "pcie"
    if waits or over_pcie or replica.stages > 1:
        return spreads.unsure
    computes = (replica.costs.dense_compute, replica.costs.expert_compute)
    converted = any(replica.rates.tflops(compute) is None for compute in computes)
    return spreads.converted if converted else spreads.usual


def _waited_prompts(replica: _Replica, batch: float) -> float:
    """The prompts that a request waits for before its own: they grow slowly with the batch."""
    return min(batch - 1, replica.calibration.prompt_wait * math.log2((1 + batch) / 2))


def _decode_step(replica: _Replica, workload: Workload, batch: float) -> _Step:
    """The mean step of a decoding request: some steps include prompts of the batch's other
    requests, but for those that it waited for."""
    prompts = batch - 1 - _waited_prompts(replica, batch)
    prompts_per_step = prompts / workload.output_tokens
    mixed_part = min(1.0, prompts_per_step)
    plain = _step(replica, workload, batch, 0.0)
    if not mixed_part:
        return plain
    mixed = _step(replica, workload, batch, max(1.0, prompts_per_step))
    return _Step(
        *(a * (1 - mixed_part) + b * mixed_part for a, b in zip(plain, mixed, strict=True))
    )


def _first_token_s(replica: _Replica, workload: Workload, batch: float) -> float:
    """Seconds until the first token: the prompts that it waits for, and its own prompt's step
    beside the others' decoding."""
    own_s = _step(replica, workload, batch - 1, 1.0).total
    other_s = _step(replica, workload, 0.0, 1.0).total
    return own_s + _waited_prompts(replica, batch) * other_s


def _step(replica: _Replica, workload: Workload, decoding: float, prompts: float) -> _Step:
    """One forward pass of `decoding` requests' next tokens and of `prompts` whole prompts."""
    costs, calibration = replica.costs, replica.calibration
    tokens = decoding + prompts * workload.input_tokens
    dense_read_s, dense_compute_s = _dense_s(replica, tokens, decoding + prompts)
    expert_read_s, expert_compute_s = _experts_s(replica, tokens)
    message_bytes = tokens * costs.hidden_size * ACTIVATION_BYTES
    link = (replica.rates, replica.links, calibration.links)
    links_s = 2 * costs.layers * all_reduce_s(message_bytes, replica.gpus, *link)
    if replica.stages > 1:
        links_s += (replica.stages - 1) * hand_over_s(message_bytes, *link)
    return _Step(
        weights=dense_read_s + expert_read_s,
        kv=_kv_read_s(replica, workload, decoding),
        compute=dense_compute_s
        + expert_compute_s
        + prompts * _prompt_attention_s(replica, workload.input_tokens),
        links=links_s,
        overhead=_overhead_s(replica, workload, decoding, prompts),
    )


def _overhead_s(replica: _Replica, workload: Workload, decoding: float, prompts: float) -> float:
    """Seconds of launching kernels, scheduling and sampling."""
    costs, calibration = replica.costs, replica.calibration
    kernels_us = (
        costs.dense_matrices * calibration.matrix_overhead_us
        + costs.moe_layers * calibration.moe_layer_overhead_us
    )
    if prompts:
        kernels_us += costs.layers * calibration.prompt_layer_overhead_us
    if workload.eager:
        kernels_us = max(kernels_us, costs.layers * EAGER_LAYER_US)
    return (kernels_us + calibration.request_overhead_us * (decoding + prompts)) * 1e-6


def _longer(read_s: float, compute_s: float) -> tuple[float, float]:
    """The roofline: reading and computing overlap, so only the longer of the two counts."""
    return (read_s, 0.0) if read_s >= compute_s else (0.0, compute_s)


def _dense_s(replica: _Replica, tokens: float, sequences: float) -> tuple[float, float]:
    """Seconds to read and compute the weights that every token uses; the LM head computes only
    each sequence's last token."""
    costs, calibration = replica.costs, replica.calibration
    read = (costs.dense_bytes + costs.head_bytes) / replica.bytes_per_s
    converted_s = replica.conversion_s(costs.dense_parameters, costs.dense_compute)
    flops = 2 * (costs.dense_parameters * tokens + costs.head_parameters * sequences)
    return _longer(
        read / calibration.weight_read_efficiency + converted_s,
        flops / (replica.flops_per_s(costs.dense_compute) * calibration.gemm_efficiency),
    )


def _experts_s(replica: _Replica, tokens: float) -> tuple[float, float]:
    """Seconds to read and compute routed experts: a pass reads only those that a token chose.

    With k of E experts for each of t tokens, alike likely, E(1 - (1 - k/E)^t) are read; as some are
    chosen more often, t counts as t^0.9. A GPU's part of an expert counts in whole tiles of the
    kernel.
    """
    costs, calibration = replica.costs, replica.calibration
    if not costs.moe_layers or not costs.experts:
        return 0.0, 0.0
    share = min(1.0, costs.experts_per_token / costs.experts)
    read_experts = costs.moe_layers * costs.experts * (1 - (1 - share) ** (tokens**EXPERT_SKEW))
    chosen = costs.moe_layers * costs.experts_per_token * costs.expert_parameters
    width = costs.expert_parameters / (3 * costs.hidden_size) / replica.gpus
    tiles = math.ceil(width / EXPERT_TILE) * EXPERT_TILE / width if width > 0 else 1.0
    rate = replica.bytes_per_s * calibration.expert_read_efficiency
    read_s = read_experts * costs.expert_bytes / rate + replica.conversion_s(
        read_experts * costs.expert_parameters, costs.expert_compute
    )
    peak = replica.flops_per_s(costs.expert_compute) * calibration.expert_gemm_efficiency
    return _longer(tiles * read_s, tiles * 2 * chosen * tokens / peak)


def _kv_read_s(replica: _Replica, workload: Workload, decoding: float) -> float:
    """Seconds to read the KV cache of the decoding requests, at half of their output, and to read
    and write the state of recurrent layers.

    The cache is split by KV heads, and replicated beyond them; a latent cache (MLA) is not split.
    """
    costs = replica.costs
    context = workload.input_tokens + workload.output_tokens / 2
    rows = costs.full_attention_layers * context
    rows += costs.window_layers * min(context, costs.window_tokens)
    parts = 1 if costs.latent_attention else min(replica.gpus, costs.kv_heads)
    each = rows * costs.kv_bytes_per_token_layer / parts
    each += 2 * costs.recurrent_layers * costs.state_bytes / replica.gpus
    rate = replica.rates.memory_bandwidth_gb_s * 1e9 * replica.calibration.kv_read_efficiency
    return decoding * each / rate


def _prompt_attention_s(replica: _Replica, prompt_tokens: int) -> float:
    """Seconds of one prompt's attention to itself, in 16 bits: QK and PV over the causal half."""
    costs = replica.costs
    pairs = costs.full_attention_layers * prompt_tokens**2 / 2
    pairs += costs.window_layers * prompt_tokens * min(prompt_tokens / 2, costs.window_tokens)
    flops = 4 * costs.query_heads * costs.head_size * pairs
    peak = replica.rates.bf16_tflops * 1e12 * replica.gpus
    return flops / (peak * replica.calibration.prefill_attention_efficiency)


def _bound(step: _Step) -> Bound:
    spent: dict[Bound, float] = {
        "weights": step.weights,
        "kv": step.kv,
        "compute": step.compute,
        "links": step.links,
    }
    return max(spent, key=lambda name: spent[name])
