"""The temporary memory of a step, beside weights and KV cache, as vLLM's profile run measures it.

Shapes of the tensors that are alive at once: vLLM 0.33 `v1/worker/gpu_model_runner.py`
profile_run, `v1/sample/`, `layers/fused_moe/`. All in bytes on one GPU.
"""

from dataclasses import dataclass

from roles.engine.vllm.engine_versions import Rules
from roles.models import Model

_ACTIVATION_BYTES = 2
# Since 0.10 experts use buffers of the engine, which stay until the sampler has run.
_KEPT_WORKSPACE = (0, 10)
# A picture of Llama 3.2 Vision: 4 tiles of 1601 patches, each with the concatenated hidden states
# of six layers, their projection and the tower's own feed-forward. Every request brought one.
_TILE_TOKENS = 4 * 1601
_TILE_NUMBERS = 7680 + 4096 + 2 * 5120


@dataclass(frozen=True)
class Step:
    """The largest step of an engine: `tokens` of at most `requests`, and its parallelism.

    `stages` are pipeline stages; `data_parallel` engines share experts.
    """

    tokens: int
    requests: int
    tensor: int = 1
    stages: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    capability: float | None = None


def forward_bytes(model: Model, step: Step) -> float:
    """Bytes of a layer's forward pass: hidden state, residual, norm and attention's output, and
    the feed-forward's gate, up and their product, or the projections of attention."""
    hidden = model.hidden_size
    qkv = (model.attention_heads + 2 * model.kv_heads) * model.head_size
    widest = max(6 * model.intermediate_size / step.tensor, 2 * qkv / step.tensor + 2 * hidden)
    other_bytes = expert_bytes(model, step) + _between(model, step) + _encoded(model, step)
    return step.tokens * (8 * hidden + widest) + other_bytes


def sampler_bytes(model: Model, step: Step, rules: Rules) -> float:
    """Bytes of the sampler over all requests, with the hidden states that it uses."""
    logits = min(step.requests, step.tokens) * model.padded_vocabulary_size
    kept = expert_bytes(model, step) if rules.version >= _KEPT_WORKSPACE else 0
    hidden = step.tokens * model.hidden_size * _ACTIVATION_BYTES
    other_bytes = kept + _between(model, step) + _encoded(model, step)
    return logits * rules.sampler_bytes + hidden + other_bytes


def expert_bytes(model: Model, step: Step) -> float:
    """Bytes of the two buffers of a mixture of experts, with a row per token and expert.

    MXFP4 experts on Hopper use a kernel without these buffers.
    """
    experts = model.experts
    if experts is None or _is_hopper_mxfp4(model, step):
        return 0
    over = 1 if step.expert_parallel else step.tensor * step.data_parallel
    inner = experts.intermediate_size / over
    rows = step.tokens * step.data_parallel * experts.per_token
    first, second = max(inner, model.hidden_size), max(2 * inner, model.hidden_size)
    return rows * (first + second) * _ACTIVATION_BYTES


def picture_bytes(model: Model, step: Step) -> float:
    """Bytes of pictures in encoder-decoder models, one per request (Llama 3.2 Vision)."""
    if model.model_type != "mllama":
        return 0
    return step.requests * _TILE_TOKENS * _TILE_NUMBERS * _ACTIVATION_BYTES


def _between(model: Model, step: Step) -> float:
    """Bytes of the hidden state and residual that a pipeline stage sends to the next."""
    if step.stages == 1:
        return 0
    return 2 * step.tokens * model.hidden_size * _ACTIVATION_BYTES


def _encoded(model: Model, step: Step) -> float:
    """Bytes of an encoder's output for a step's tokens."""
    return step.tokens * model.hidden_size * _ACTIVATION_BYTES if model.everywhere else 0


def _is_hopper_mxfp4(model: Model, step: Step) -> bool:
    mxfp4 = model.quantization is not None and model.quantization.method == "mxfp4"
    return mxfp4 and step.capability is not None and 9 <= step.capability < 10


def graph_sizes(requests: int, largest: int) -> int:
    """How many batch sizes vLLM captures: 1, 2, 4, then each 8th up to 256 and each 16th beyond."""
    most = min(2 * requests, largest)
    small = sum(size <= most for size in (1, 2, 4))
    return small + min(most, 248) // 8 + max(0, most // 16 - 15)


def graph_gib(model: Model, step: Step, layers: int) -> float:
    """GiB of CUDA graphs of a stage of `layers`, for decoding and mixed steps.

    From vLLM 0.19's estimates on an H100 for 15 models with 51 sizes: 0.022 GiB a layer, 0.033 with
    experts, regardless of the layer's size. gpt-oss and Blackwell capture up to 1024 tokens, not
    512.
    """
    wide = model.model_type == "gpt_oss" or (step.capability or 0) >= 10
    a_layer = 0.022 if model.experts is None else 0.033
    return a_layer * layers * graph_sizes(step.requests, 1024 if wide else 512) / 51
