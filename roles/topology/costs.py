"""The input of the performance estimate: a GPU's rates, a model's costs, and the load.

These are plain numbers, so the estimate does not depend on names of cards or models."""

from dataclasses import dataclass
from typing import Literal

LinkKind = Literal["nvlink", "pcie"]
# What a multiplication takes: weights and activations alike, MXFP4 weights with FP8 activations, or
# weights that are converted to 16 bits first.
Compute = Literal["16 bit", "fp8", "fp4", "mxfp4", "weight only"]


@dataclass(frozen=True)
class GpuRates:
    """Peak rates of one GPU, as in its datasheet, without sparsity.

    `nvlink_gb_s` is the total of both directions of one GPU, as in datasheets; None without NVLink.
    `pcie_gb_s` is one direction (32 for Gen4 x16, 64 for Gen5 x16). `fp8_tflops` and `fp4_tflops`
    are None if the tensor cores have no FP8 or FP4.
    """

    memory_bandwidth_gb_s: float
    bf16_tflops: float
    fp8_tflops: float | None
    nvlink_gb_s: float | None
    pcie_gb_s: float
    fp4_tflops: float | None = None

    def __post_init__(self) -> None:
        rates = (self.memory_bandwidth_gb_s, self.bf16_tflops, self.pcie_gb_s)
        some = (self.fp8_tflops, self.nvlink_gb_s, self.fp4_tflops)
        if min(*rates, *(rate for rate in some if rate is not None)) <= 0:
            raise ValueError(f"a GPU's rates must be above 0: {self}")

    def tflops(self, compute: Compute) -> float | None:
        """The rate of multiplications whose operands are so; None if the tensor cores lack it."""
        if compute == "fp8":
            return self.fp8_tflops
        if compute == "fp4":
            return self.fp4_tflops
        if compute == "mxfp4":
            # The activations are FP8.
            return self.fp8_tflops if self.fp4_tflops else None
        return self.bf16_tflops if compute == "16 bit" else None


@dataclass(frozen=True)
class ReplicaLinks:
    """The slowest link among the GPUs of a replica.

    `peers`: the GPUs can read each other's memory. False if the driver or the board forbids it
    (consumer cards, some virtual machines); traffic then goes through the host's memory.
    `measured_gb_s`: the measured bus bandwidth of a large all-reduce; None if none was measured.
    """

    kind: LinkKind
    peers: bool = True
    measured_gb_s: float | None = None


@dataclass(frozen=True)
class ModelCosts:
    """What one forward pass of a model reads and computes in all layers.

    `dense_bytes` and `dense_parameters`: the weights that every token uses (attention, dense
    MLPs, shared experts, routers), without embeddings and LM head. `head_bytes` and
    `head_parameters`: the LM head, tied or not. `expert_bytes` and `expert_parameters`: one
    routed expert of one layer. `dense_matrices`: the number of matrices in `dense_parameters`.
    `kv_bytes_per_token_layer`: K and V of one token in one layer, in 16 bits: measured engines read
    an FP8 cache no faster by token. `state_bytes`: a request's state in one of the
    `recurrent_layers` (linear attention, state space). `dense_compute` and `expert_compute`: how
    they multiply on a card that can.
    """

    layers: int
    hidden_size: int
    dense_bytes: float
    dense_parameters: float
    head_bytes: float
    head_parameters: float
    query_heads: int
    kv_heads: int
    head_size: float
    kv_bytes_per_token_layer: float
    full_attention_layers: int
    window_layers: int = 0
    window_tokens: int = 0
    latent_attention: bool = False
    moe_layers: int = 0
    experts: int = 0
    experts_per_token: int = 0
    expert_bytes: float = 0.0
    expert_parameters: float = 0.0
    dense_matrices: int = 0
    recurrent_layers: int = 0
    state_bytes: float = 0.0
    dense_compute: Compute = "16 bit"
    expert_compute: Compute = "16 bit"


@dataclass(frozen=True)
class Workload:
    """The load of one replica: concurrent requests, all of one size.

    `concurrency` may be below 1: few requests on many replicas leave some idle. `batch_limit`: the
    maximum number of running requests (max_num_seqs, or what the KV cache holds); others wait. None
    means no limit. `eager`: the engine launches every kernel by itself, without CUDA graphs.
    """

    input_tokens: int
    output_tokens: int
    concurrency: float
    batch_limit: int | None = None
    eager: bool = False

    def __post_init__(self) -> None:
        if self.input_tokens < 1 or self.output_tokens < 1 or self.concurrency <= 0:
            raise ValueError(f"a load needs tokens and requests above 0: {self}")
        if self.batch_limit is not None and self.batch_limit < 1:
            raise ValueError(f"batch_limit must be at least 1: {self}")
