"""Builds the decoder layers of a config: mixer, feed-forward block and tensors."""

from typing import Any

from roles.models import parameters
from roles.models.families import (
    BIASED_MLP,
    BIASED_OUTPUT,
    BIASED_QKV,
    ENCODERS,
    FOUR_NORMS,
    QK_NORM,
    UNGATED,
    attention_kinds,
    expert_count,
    kv_head_count,
    latent_size,
    mlp_kinds,
)
from roles.models.fields import Fields
from roles.models.model import Attention, Dense, Experts, Layer, Recurrent, Weight
from roles.models.parameters import Builder

_DTYPE_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}


def decoder_layers(build: Builder, count: int, context_limit: int) -> tuple[Layer, ...]:
    """All layers, in order; ValueError if the config is incomplete or contradictory."""
    fields = build.fields
    if blocks := fields.listed("block_configs", length=count):
        return tuple(_block(build.at(f"layers.{i}."), block) for i, block in enumerate(blocks))
    mixers = attention_kinds(fields, count, context_limit)
    mlps = mlp_kinds(fields, count)
    shared = fields.integer("num_kv_shared_layers", default=0, least=0)
    shared = count if fields.model_type in ENCODERS else shared
    made: dict[Layer, Layer] = {}
    layers = []
    for i in range(count):
        layer = _layer(build.at(f"layers.{i}."), i, mixers[i], mlps[i], i < count - shared)
        layers.append(made.setdefault(layer, layer))
    return tuple(layers)


def _layer(build: Builder, index: int, kind: str, mlp: str, own_kv: bool) -> Layer:
    mixer, weights = _mixer(build, index, kind, own_kv)
    block, more = _feed_forward(build, mlp, own_kv)
    norms = 4 if build.fields.model_type in FOUR_NORMS else (mixer is not None) + (mlp != "none")
    weights += build.unquantised("layernorm", norms * build.hidden)
    return Layer(mixer, block, (*weights, *more, *_per_layer_input(build)), own_kv)


def _mixer(
    build: Builder, index: int, kind: str, own_kv: bool
) -> tuple[Attention | Recurrent | None, list[Weight]]:
    if kind == "none":
        return None, []
    if kind in ("full", "sliding", "chunked"):
        return _attention(build, index, kind, own_kv)
    if kind == "mla":
        return _latent(build, index)
    return _recurrent(build, kind)


def _head_sizes(fields: Fields, index: int, kind: str) -> tuple[int, int, int]:
    """Query heads, KV heads and head size of one layer."""
    per_layer = fields.listed("num_attention_heads_per_layer")
    own = Fields({"heads": per_layer[index]} if per_layer else {}, {})
    heads = own.integer("heads", default=fields.integer("num_attention_heads"))
    kv = kv_head_count(fields, heads)
    size = fields.get("head_dim", "kv_channels", "attention_head_dim")
    size = fields.integer("head_dim", "kv_channels", "attention_head_dim") if size else 0
    size = size or fields.integer("hidden_size") // fields.integer("num_attention_heads")
    if fields.model_type == "gemma4" and kind == "full":
        size = fields.integer("global_head_dim", default=size)
        if fields.get("attention_k_eq_v"):
            kv = fields.integer("num_global_key_value_heads", default=kv)
    if size < 1 or heads % kv:
        raise ValueError(
            f"num_key_value_heads ({kv}) must divide num_attention_heads ({heads}), and "
            f"hidden_size hold a head for each: correct the config"
        )
    return heads, kv, size


def _attention(
    build: Builder, index: int, kind: Any, own_kv: bool
) -> tuple[Attention, list[Weight]]:
    fields = build.fields
    heads, kv, size = _head_sizes(fields, index, kind)
    path = build.at("mixer." if fields.model_type == "nemotron_h" else "self_attn.")
    bias = fields.get(
        "attention_bias", "qkv_bias", "use_qkv_bias", "add_qkv_bias", "use_bias", "bias"
    )
    biased = fields.model_type in BIASED_QKV if bias is None else bool(bias)
    output = fields.model_type in BIASED_OUTPUT or (bool(fields.get("attention_bias")) and biased)
    norm = QK_NORM.get(fields.model_type, "head" if fields.get("use_qk_norm") else "")
    norm_size = {"head": 2 * size, "all": (heads + kv) * size}.get(norm, 0)
    gate = bool(fields.get("attn_output_gate", default=fields.model_type == "qwen3_next"))
    sinks = path.unquantised("sinks", heads, 1, "outputs") if fields.model_type == "gpt_oss" else []
    if own_kv or fields.model_type != "gemma4":
        weights = parameters.attention(
            path, heads, kv, size, bias=biased, output_bias=output, gate=gate, query_norm=norm_size
        )
    else:
        weights = [
            *path.linear("q_proj", heads * size, build.hidden),
            *path.linear("o_proj", build.hidden, heads * size, "inputs"),
        ]
    if gating := fields.get("gating"):
        weights += path.linear(
            "g_proj", heads if gating == "per-head" else heads * size, build.hidden
        )
    if low := fields.integer("share_q_dim", default=0, least=0):
        # Step 3 projects queries through a low rank, which is replicated on every GPU.
        weights = [
            *path.linear("qkv_proj", low + 2 * kv * size, build.hidden, "replicated"),
            *path.linear("wq", heads * size, low),
            *path.linear("o_proj", build.hidden, heads * size, "inputs"),
        ]
    window = _window(fields, kind)
    index_bytes = _sparse_index(fields, path, index, sinks)
    return Attention(kind, heads, kv, size, size, window, index_bytes), [*weights, *sinks]


def _sparse_index(fields: Fields, path: Builder, index: int, made: list[Weight]) -> int:
    """Add MiniMax M3's indexer projections to `made`; return the bytes that it caches per token."""
    sparse = fields.mapping("sparse_attention_config")
    if not sparse or not sparse.get("use_sparse_attention"):
        return 0
    frequency = sparse.get("sparse_attention_freq")
    if isinstance(frequency, list) and index < len(frequency) and not frequency[index]:
        return 0
    size = int(sparse.get("sparse_index_dim", 128))
    heads = int(sparse.get("sparse_num_index_heads", 1))
    made += path.linear("index_qk_proj", heads * size + size, path.hidden, "replicated")
    return 2 * size


def _window(fields: Fields, kind: str) -> int:
    if kind == "sliding":
        return fields.integer("sliding_window", "sliding_window_size")
    return fields.integer("attention_chunk_size") if kind == "chunked" else 0


def _latent(build: Builder, index: int) -> tuple[Attention, list[Weight]]:
    fields = build.fields
    path = build.at("self_attn.")
    heads = fields.integer("num_attention_heads")
    size = fields.integer("kv_lora_rank") + latent_size(fields, "qk_rope_head_dim")
    weights = parameters.latent_attention(path, heads)
    if fields.model_type == "minicpm3":
        # vLLM caches full keys and values, of the queries' length.
        size = fields.integer("qk_nope_head_dim") + fields.integer("qk_rope_head_dim")
        return Attention("full", heads, heads, size, size), weights
    index_bytes = 0
    types = fields.listed("indexer_types")
    if fields.get("index_topk") and (not types or types[index] != "shared"):
        weights += parameters.indexer(path)
        # FP8 keys and a float32 scale for each 128 of them.
        dim = fields.integer("index_head_dim")
        index_bytes = dim + 4 * -(-dim // 128)
    return Attention("mla", heads, 1, size, 0, 0, index_bytes), weights


def _recurrent(build: Builder, kind: str) -> tuple[Recurrent, list[Weight]]:
    fields = build.fields
    state = _DTYPE_BYTES.get(str(fields.get("mamba_ssm_dtype", "mamba_ssm_cache_dtype")), 0)
    if kind == "gdn":
        return _gated_delta_net(build, state or 2)
    if kind == "kda":
        return _kimi_delta(build)
    if kind == "lightning":
        return _lightning(build)
    path = build.at("mixer." if fields.model_type == "nemotron_h" else "mamba.")
    if kind == "mamba1":
        wide = fields.integer("mamba_expand", "expand", default=2) * build.hidden
        if fields.model_type in ("mamba", "falcon_mamba"):
            wide = fields.integer("intermediate_size", default=wide)
        size = fields.integer("mamba_d_state", "state_size", default=16)
        rank = fields.get("mamba_dt_rank", "time_step_rank")
        rank = rank if isinstance(rank, int) else -(-build.hidden // 16)
        kernel = fields.integer("mamba_d_conv", "conv_kernel", default=4)
        recurrent = Recurrent("mamba1", 0, 0, kernel, wide, wide * size, state or 2)
        return recurrent, parameters.mamba1(path, wide, size, rank)
    if kind == "short_conv":
        kernel = fields.integer("conv_L_cache", default=3)
        weights = [
            *build.linear("conv.in_proj", 3 * build.hidden, build.hidden),
            *build.unquantised("conv.conv", build.hidden, kernel, "outputs"),
            *build.linear("conv.out_proj", build.hidden, build.hidden, "inputs"),
        ]
        return Recurrent("short_conv", 0, 0, kernel, build.hidden, 0, 2), weights
    heads = fields.integer("mamba_num_heads", "mamba_n_heads", "n_mamba_heads", "num_heads")
    size = fields.integer("mamba_head_dim", "mamba_d_head", "mamba_headdim", "head_dim")
    groups = fields.integer("n_groups", "mamba_n_groups", "mamba_ngroups", default=1)
    states = fields.integer("ssm_state_size", "mamba_d_state", "state_size", default=128)
    channels = heads * size + 2 * groups * states
    kernel = fields.integer("conv_kernel", "mamba_d_conv", default=4)
    elements = heads * size * states
    recurrent = Recurrent("mamba2", heads, groups, kernel, channels, elements, state or 2)
    return recurrent, parameters.mamba2(path, heads, size, groups, states)


def _lightning(build: Builder) -> tuple[Recurrent, list[Weight]]:
    """MiniMax's linear attention: a float32 square of its head size for each head."""
    fields = build.fields
    heads = fields.integer("num_attention_heads")
    size = fields.integer("head_dim", default=build.hidden // heads)
    path, wide = build.at("self_attn."), heads * size
    weights = [
        *path.linear("qkv_proj", 3 * wide, build.hidden),
        *path.linear("output_gate", wide, build.hidden),
        *path.linear("out_proj", build.hidden, wide, "inputs"),
        *path.unquantised("norm", wide),
    ]
    return Recurrent("linear", heads, heads, 1, 0, heads * size * size, 4), weights


def _gated_delta_net(build: Builder, state_bytes: int) -> tuple[Recurrent, list[Weight]]:
    fields = build.fields
    keys, heads = fields.integer("linear_num_key_heads"), fields.integer("linear_num_value_heads")
    key, value = fields.integer("linear_key_head_dim"), fields.integer("linear_value_head_dim")
    kernel = fields.integer("linear_conv_kernel_dim", default=4)
    recurrent = Recurrent(
        "gdn", heads, keys, kernel, 2 * key * keys + value * heads, heads * key * value, state_bytes
    )
    return recurrent, parameters.gated_delta_net(build.at("linear_attn."))


def _kimi_delta(build: Builder) -> tuple[Recurrent, list[Weight]]:
    linear = build.fields.mapping("linear_attn_config") or {}
    own = Fields(linear, linear)
    heads, size = own.integer("num_heads"), own.integer("head_dim")
    kernel = own.integer("short_conv_kernel_size", default=4)
    recurrent = Recurrent("kda", heads, heads, kernel, 3 * heads * size, heads * size * size, 4)
    weights = parameters.kimi_delta_attention(build.at("self_attn."), heads, size, kernel)
    return recurrent, weights


def _feed_forward(
    build: Builder, kind: str, own_kv: bool
) -> tuple[Dense | Experts | None, list[Weight]]:
    fields = build.fields
    if kind == "none":
        return None, []
    gated = fields.model_type not in UNGATED
    if kind == "experts":
        return _experts(build, gated)
    size = fields.integer("dense_intermediate_size", "intermediate_size_mlp", "intermediate_size")
    if not own_kv and fields.get("use_double_wide_mlp"):
        size *= 2
    if fields.model_type in ("qwen", "molmo"):
        # These count gate and up together.
        size //= 2
    bias = bool(fields.get("mlp_bias", default=fields.model_type in BIASED_MLP))
    path = build.at("mixer." if fields.model_type == "nemotron_h" else "mlp.")
    return Dense(size, gated), parameters.dense(path, size, gated=gated, bias=bias)


def _experts(build: Builder, gated: bool) -> tuple[Experts, list[Weight]]:
    fields = build.fields
    count = expert_count(fields)
    size = fields.integer(
        "moe_intermediate_size",
        "expert_intermediate_size",
        "expert_ffn_hidden_size",
        "intermediate_size",
    )
    top = fields.integer(
        "num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", default=1
    )
    if top > count:
        raise ValueError(
            f"{fields.at}num_experts_per_tok is {top}; it must be at most {count}, the experts"
        )
    path = build.at("mixer." if fields.model_type == "nemotron_h" else "mlp.")
    latent = fields.integer("moe_latent_size", default=0, least=0)
    bias = fields.model_type == "gpt_oss"
    weights = parameters.experts(path, count, size, gated=gated, bias=bias, inputs=latent or None)
    if latent:
        weights += path.linear("fc1_latent_proj", latent, build.hidden, "replicated")
        weights += path.linear("fc2_latent_proj", build.hidden, latent, "replicated")
    shared = _shared_size(fields, size)
    if shared:
        name = "" if fields.model_type == "gemma4" else "shared_experts."
        weights += parameters.dense(path.at(name), shared, gated=gated)
        if fields.get("shared_expert_intermediate_size"):
            weights += path.unquantised("shared_expert_gate", 1, build.hidden)
    return Experts(count, top, size, shared), weights


def _shared_size(fields: Fields, expert_size: int) -> int:
    """The width of the shared expert, or of a dense block beside the experts; 0 without one."""
    own = ("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size")
    own = (*own, "share_expert_dim")
    if fields.get(*own):
        return fields.integer(*own)
    count = fields.get(
        "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert"
    )
    if count and isinstance(count, int):
        each = fields.integer("shared_intermediate_size", default=expert_size, least=0)
        return count * (each or expert_size)
    if fields.model_type == "arctic":
        return fields.integer("hidden_size")
    adds_shared_size = fields.model_type in ("gemma4", "llama4", "longcat_flash")
    if adds_shared_size or fields.get("residual_moe"):
        return fields.integer("intermediate_size")
    if fields.model_type == "granitemoehybrid":
        return fields.integer("shared_intermediate_size", default=0, least=0)
    return 0


def _block(build: Builder, block: Any) -> Layer:
    """A layer of a pruned model (Nemotron NAS), in which each layer has its own sizes."""
    fields = build.fields
    attention = block.get("attention") or {}
    mixer, weights = None, list[Weight]()
    heads = fields.integer("num_attention_heads")
    if not attention.get("no_op") and attention.get("n_heads_in_group"):
        size = fields.integer("head_dim", default=build.hidden // heads)
        kv = heads // int(attention["n_heads_in_group"])
        mixer = Attention("full", heads, kv, size, size)
        weights += parameters.attention(build.at("self_attn."), heads, kv, size)
    elif attention.get("replace_with_linear"):
        weights += build.linear("self_attn.linear_attn", build.hidden, build.hidden, "replicated")
    ffn, mlp = block.get("ffn") or {}, None
    if not ffn.get("no_op") and ffn.get("ffn_mult"):
        size = int(2 * ffn["ffn_mult"] * build.hidden / 3)
        size = -(-size // 256) * 256
        mlp = Dense(size)
        weights += parameters.dense(build.at("mlp."), size)
    weights += build.unquantised("layernorm", 2 * build.hidden)
    return Layer(mixer, mlp, tuple(weights))


def _per_layer_input(build: Builder) -> list[Weight]:
    """Gemma 3n's and 4's small models: projections of the second embedding that each layer adds."""
    size = build.fields.integer("hidden_size_per_layer_input", default=0, least=0)
    if not size:
        return []
    return [
        *build.linear("per_layer_input_gate", size, build.hidden, "replicated"),
        *build.linear("per_layer_projection", build.hidden, size, "replicated"),
    ]
