"""A model as the planner sees it: its layers, their cache per token, and its parameters.

A `Model` is made from a config.json (`config.parse_config`). Its parameters are listed as vLLM 0.33
allocates them (fused projections, padded vocabulary), so that their bytes on each GPU follow from
how tensor, pipeline and expert parallel split them (`weights.weights_per_gpu`).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from roles.models.gguf_shape import GgufShape

VOCABULARY_PADDING = 64  # vLLM pads embeddings to whole 64s (vocab_parallel_embedding.py)

AttentionKind = Literal["full", "sliding", "chunked", "mla"]
RecurrentKind = Literal["gdn", "kda", "mamba1", "mamba2", "short_conv", "linear"]
Split = Literal["replicated", "outputs", "inputs", "vocabulary"]
FileFormat = Literal["safetensors", "gguf"]
# Architectures that generate nothing (vLLM 0.33 `config/model.py`, _SUFFIX_TO_DEFAULTS).
_POOLING = (
    *("ForSequenceClassification", "ForTokenClassification", "ForMaskedLM", "ForTextEncoding"),
    *("EmbeddingModel", "RewardModel", "ForRewardModeling", "ClassificationModel"),
)
_ENCODERS = ("Bert", "Roberta", "XLMRoberta")


@dataclass(frozen=True)
class Format:
    """How one number of a matrix is stored: `bits` each, and a scale for each block of the matrix.

    A block is `block_outputs` × `block_inputs` numbers, 0 meaning the whole side; `scale_bytes` are
    the bytes of a block's scale and zero point, 0 without scales.
    """

    name: str
    bits: float
    block_outputs: int = 0
    block_inputs: int = 0
    scale_bytes: float = 0


@dataclass(frozen=True)
class Weight:
    """Parameters that vLLM allocates as one tensor.

    `outputs` × `inputs` is one matrix; `split` says which side tensor parallel divides. A fused QKV
    projection also has `kv_outputs` of `kv_heads` heads: these are divided up to the number of
    heads, and copied beyond. `experts` matrices are stacked in a mixture of experts (0: not one).
    `name` is the module's path within its layer, as quantisation configs name it.
    """

    name: str
    outputs: int
    inputs: int
    format: Format
    split: Split = "replicated"
    kv_outputs: int = 0
    kv_heads: int = 0
    experts: int = 0


@dataclass(frozen=True)
class Attention:
    """Attention that keeps keys and values of tokens.

    `window` is the sliding window or the chunk in tokens, 0 for full attention. For MLA `head_size`
    is the latent (kv_lora_rank + qk_rope_head_dim), there is one head, and `value_head_size` is 0.
    `index_bytes` are a sparse-attention indexer's additional bytes per token (DeepSeek V3.2: 132).
    """

    kind: AttentionKind
    heads: int
    kv_heads: int
    head_size: int
    value_head_size: int
    window: int = 0
    index_bytes: int = 0


@dataclass(frozen=True)
class Recurrent:
    """A layer whose state has a fixed size, independent of the request's length.

    State of a request: (`conv_kernel` - 1) × `conv_channels` numbers in the model's dtype, and
    `state_elements` numbers of `state_bytes` each; tensor parallel divides both. `heads` are the
    value heads and `key_heads` the key heads or groups that tensor parallel must divide.
    """

    kind: RecurrentKind
    heads: int
    key_heads: int
    conv_kernel: int
    conv_channels: int
    state_elements: int
    state_bytes: int


@dataclass(frozen=True)
class Dense:
    """A feed-forward block; `gated` has three matrices (gate, up, down), else two."""

    intermediate_size: int
    gated: bool = True


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: `per_token` of `count` experts run for a token, and a shared one for
    all."""

    count: int
    per_token: int
    intermediate_size: int
    shared_intermediate_size: int = 0


@dataclass(frozen=True)
class Encoder:
    """What tensor parallel must divide of a vision encoder: its heads and its feed-forward's width.

    0 where the engine runs that part whole on every GPU.
    """

    heads: int
    intermediate_size: int


@dataclass(frozen=True)
class Layer:
    """One decoder layer. `own_kv` is false if it reads the KV cache of an earlier layer."""

    mixer: Attention | Recurrent | None
    mlp: Dense | Experts | None
    weights: tuple[Weight, ...] = ()
    own_kv: bool = True


@dataclass(frozen=True)
class Quantization:
    """The checkpoint's quantisation: `method` as vLLM calls it, and the format of its linears.

    `experts_only` is true where only experts are quantised (gpt-oss). `block_outputs` and
    `block_inputs` of the format say what a GPU's part of a matrix must divide by.
    """

    method: str
    linear: Format
    ignored: tuple[str, ...] = ()
    experts_only: bool = False
    kv_cache_dtype: str | None = None


@dataclass(frozen=True)
class Model:
    """A model as vLLM serves it.

    `weights_bytes` are the exact bytes of the checkpoint's tensors, None if they are unknown;
    `exact` is true where every parameter is known by shape, so that no margin is needed.
    `first`, `last` and `everywhere` are the parameters on the first pipeline stage (embeddings), on
    the last (head, norm; the tied embedding again) and on each (vision tower, `encoder`).
    `scale` is the factor from the shapes' bytes to `weights_bytes`; `rope_bytes` are rotary tables,
    on every GPU. `margin` is the fraction by which an estimate may be too low, 0 if `exact`. `gguf`
    is the memory shape of a GGUF file for llama.cpp. `revision` is the recorded commit of the hub.
    """

    id: str
    architectures: tuple[str, ...]
    model_type: str
    hidden_size: int
    vocabulary_size: int
    context_limit_tokens: int
    layers: tuple[Layer, ...]
    first: tuple[Weight, ...]
    last: tuple[Weight, ...]
    everywhere: tuple[Weight, ...] = ()
    tied_embeddings: bool = False
    quantization: Quantization | None = None
    dtype: str = "bfloat16"
    weights_bytes: int | None = None
    exact: bool = True
    margin: float = 0.0
    scale: float = 1.0
    rope_bytes: int = 0
    encoder: Encoder | None = None
    warnings: tuple[str, ...] = ()
    variant_of: str | None = None
    gguf: GgufShape | None = None
    revision: str | None = None

    def __hash__(self) -> int:
        # Plans hash models thousands of times, and models have many layers.
        return hash((self.id, self.weights_bytes, self.dtype, self.quantization, len(self.layers)))

    @cached_property
    def memo(self) -> dict[object, object]:
        """A cache of values that were computed from this model, for the arithmetic of this role."""
        return {}

    @property
    def format(self) -> FileFormat:
        """The format of the weight files, which determines the engines that can load them."""
        return "gguf" if self.gguf else "safetensors"

    @property
    def generates(self) -> bool:
        """Whether it goes on with a text: it is no encoder, classifier or reward model, and its
        GGUF file says of no pooling."""
        if self.gguf:
            return not self.gguf.encoder and self.gguf.pooling in ("", "none")
        return not any(
            one.endswith(_POOLING) or one.startswith(_ENCODERS) for one in self.architectures
        )

    @property
    def classifies(self) -> bool:
        """Whether it has a head that scores texts."""
        if self.gguf:
            return self.gguf.pooling == "rank"
        return any(one.endswith("ForSequenceClassification") for one in self.architectures)

    @property
    def name(self) -> str:
        """The id, as clients and the model hub name the model."""
        return self.id

    @cached_property
    def attentions(self) -> tuple[Attention, ...]:
        """The attention of each layer that has one, in order, KV-sharing layers included."""
        mixers = (layer.mixer for layer in self.layers)
        return tuple(mixer for mixer in mixers if isinstance(mixer, Attention))

    @cached_property
    def attention_heads(self) -> int:
        """The largest number of query heads of any layer; 0 without attention."""
        return max((attention.heads for attention in self.attentions), default=0)

    @cached_property
    def kv_heads(self) -> int:
        """The largest number of KV heads of any layer; 1 for MLA."""
        return max((attention.kv_heads for attention in self.attentions), default=0)

    @cached_property
    def head_size(self) -> int:
        """Size of a head, the largest of any layer."""
        return max((attention.head_size for attention in self.attentions), default=0)

    @cached_property
    def intermediate_size(self) -> int:
        """Intermediate size of the widest dense feed-forward block, shared experts included."""
        sizes = [0]
        for layer in self.layers:
            if isinstance(layer.mlp, Dense):
                sizes.append(layer.mlp.intermediate_size)
            elif isinstance(layer.mlp, Experts):
                sizes.append(layer.mlp.shared_intermediate_size)
        return max(sizes)

    @cached_property
    def experts(self) -> Experts | None:
        """The mixture of experts of the first layer that has one; None for a dense model."""
        found = (layer.mlp for layer in self.layers if isinstance(layer.mlp, Experts))
        return next(found, None)

    @cached_property
    def weight_formats(self) -> tuple[str, ...]:
        """The names of the formats of the layers' matrices, each once, in order."""
        layers = {id(layer): layer for layer in self.layers}.values()
        return tuple(dict.fromkeys(one.format.name for layer in layers for one in layer.weights))

    @cached_property
    def is_mla(self) -> bool:
        """Whether attention keeps one latent for all heads."""
        return any(attention.kind == "mla" for attention in self.attentions)

    @cached_property
    def is_sparse(self) -> bool:
        """Whether an indexer chooses which tokens attention looks at."""
        return any(attention.index_bytes for attention in self.attentions)

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one number of the model's dtype."""
        return {"float32": 4}.get(self.dtype, 2)

    @property
    def padded_vocabulary_size(self) -> int:
        """The size of the vocabulary as vLLM pads it."""
        return -(-self.vocabulary_size // VOCABULARY_PADDING) * VOCABULARY_PADDING
