"""The allowed types and bounds of the keys of a config.json.

They are checked before any value is used, so that an error names the key as it is written.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# More than any model has; each layer is a row of a plan's sums.
MAX_LAYERS = 512
# Of heads, experts, groups: a list of them is never longer either.
_MAX_COUNT = 2**16
_MAX_SIZE = 2**22
_MAX_TOKENS = 2**31 - 1


@dataclass(frozen=True)
class ValueKind:
    """A kind of value: its description for errors, and its test."""

    description: str
    accepts: Callable[[Any], bool]


def short_repr(value: Any) -> str:
    """A value's repr for an error, shortened."""
    try:
        text = f"{value!r}"
    except ValueError:
        # Python prints no integer of thousands of digits.
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:60]}…"


def check_keys(values: Mapping[str, Any], kinds: Mapping[str, ValueKind], at: str = "") -> None:
    """ValueError for the first key whose value is not of its kind; null is always accepted.

    `at` is the path of the mapping, with a dot at its end.
    """
    for key, value in values.items():
        kind = kinds.get(key)
        if value is not None and kind is not None and not kind.accepts(value):
            raise ValueError(f"{at}{key} is {short_repr(value)}; it must be {kind.description}")


def is_integer_between(value: Any, least: int, most: int) -> bool:
    """Whether a value is a whole number within bounds; 32.0 counts, true does not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def integer_between(least: int, most: int) -> ValueKind:
    """Whole numbers within bounds."""
    return ValueKind(
        f"a whole number from {least} to {most}",
        lambda value: is_integer_between(value, least, most),
    )


def _positive_number(most: float) -> ValueKind:
    def accepts(value: Any) -> bool:
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return plain and 0 < value <= most

    return ValueKind(f"above 0, a number of at most {most:g}", accepts)


def _list_of(kind: ValueKind, most: int = _MAX_COUNT) -> ValueKind:
    return ValueKind(
        f"a list, each {kind.description}",
        lambda value: (
            isinstance(value, list | tuple) and len(value) <= most and all(map(kind.accepts, value))
        ),
    )


def _either(*kinds: ValueKind) -> ValueKind:
    description = ", or ".join(kind.description for kind in kinds)
    return ValueKind(description, lambda value: any(kind.accepts(value) for kind in kinds))


TEXT = ValueKind("a text", lambda value: isinstance(value, str) and len(value) <= 10_000)
FLAG = ValueKind("true or false", lambda value: isinstance(value, bool) or value in (0, 1))
MAPPING = ValueKind("a mapping", lambda value: isinstance(value, Mapping))
_LAYERS = integer_between(1, MAX_LAYERS)
_COUNT, _POSITIVE_COUNT = integer_between(0, _MAX_COUNT), integer_between(1, _MAX_COUNT)
_SIZE, _POSITIVE_SIZE = integer_between(0, _MAX_SIZE), integer_between(1, _MAX_SIZE)
_TOKENS, _POSITIVE_TOKENS = integer_between(0, _MAX_TOKENS), integer_between(1, _MAX_TOKENS)
_INDEXES = _list_of(integer_between(-1, MAX_LAYERS), 2 * MAX_LAYERS)
_TEXTS = _list_of(TEXT, 2 * MAX_LAYERS)


def _of(kind: ValueKind, names: str) -> dict[str, ValueKind]:
    return dict.fromkeys(names.split(), kind)


# Keys of the language model's part, and of the whole file.
LANGUAGE: Mapping[str, ValueKind] = {
    **_of(
        MAPPING,
        "text_config llm_config language_config thinker_config vision_config audio_config visual "
        "attn_config ffn_config rope_scaling rope_parameters linear_attn_config "
        "sparse_attention_config quantization_config compression_config",
    ),
    **_of(
        TEXT,
        "model_type dtype torch_dtype expert_dtype _name_or_path hybrid_override_pattern "
        "mamba_ssm_dtype mamba_ssm_cache_dtype",
    ),
    **_of(
        FLAG,
        "tie_word_embeddings attention_bias qkv_bias use_qkv_bias add_qkv_bias use_bias bias "
        "mlp_bias use_sliding_window use_qk_norm attn_output_gate use_double_wide_mlp "
        "attention_k_eq_v multi_query new_decoder_architecture residual_moe",
    ),
    **_of(
        _LAYERS,
        "num_hidden_layers n_layer num_layers n_layers decoder_layers",
    ),
    **_of(
        _POSITIVE_COUNT,
        "num_attention_heads n_head n_heads decoder_attention_heads num_key_value_heads "
        "n_kv_heads kv_n_heads num_kv_heads n_head_kv num_attention_groups multi_query_group_num "
        "num_query_groups linear_num_key_heads linear_num_value_heads num_global_key_value_heads "
        "attn_layer_period expert_layer_period interleave_moe_layer_step moe_layer_interval "
        "index_n_heads mamba_num_heads mamba_n_heads n_mamba_heads mamba_d_conv conv_kernel "
        "linear_conv_kernel_dim conv_L_cache",
    ),
    **_of(
        _COUNT,
        "num_experts num_local_experts n_routed_experts moe_num_experts num_experts_per_tok "
        "num_experts_per_token top_k_experts moe_k moe_top_k n_shared_experts num_shared_experts "
        "moe_num_shared_experts num_kv_shared_layers attn_layer_offset expert_layer_offset "
        "full_attention_interval first_k_dense_replace decoder_sparse_step moe_layer_start_index "
        "n_groups mamba_n_groups mamba_ngroups",
    ),
    **_of(_either(_COUNT, _list_of(_COUNT)), "moe_topk num_shared_expert"),
    **_of(
        _POSITIVE_SIZE,
        "hidden_size n_embd n_embed d_model dim ffn_dim n_inner ffn_hidden_size "
        "ff_intermediate_size decoder_ffn_dim head_dim kv_channels attention_head_dim "
        "global_head_dim linear_key_head_dim linear_value_head_dim qk_rope_head_dim "
        "qk_nope_head_dim v_head_dim index_head_dim mamba_head_dim mamba_d_head mamba_headdim "
        "ssm_state_size mamba_d_state state_size expand mamba_expand",
    ),
    **_of(
        _SIZE,
        "kv_lora_rank q_lora_rank dense_intermediate_size intermediate_size_mlp "
        "expert_intermediate_size expert_ffn_hidden_size shared_expert_intermediate_size "
        "moe_shared_expert_intermediate_size share_expert_dim shared_intermediate_size "
        "moe_latent_size share_q_dim hidden_size_per_layer_input",
    ),
    **_of(_either(_SIZE, _list_of(_SIZE)), "intermediate_size moe_intermediate_size"),
    **_of(
        _POSITIVE_TOKENS,
        "max_position_embeddings "
        "n_positions max_seq_len seq_length model_max_length max_target_positions "
        "max_sequence_length max_seq_length seq_len attention_chunk_size",
    ),
    **_of(integer_between(1, 2**24), "vocab_size padded_vocab_size vocab_size_per_layer_input"),
    **_of(_TOKENS, "sliding_window sliding_window_size index_topk"),
    **_of(_positive_number(1e12), "rope_theta"),
    **_of(_positive_number(1), "partial_rotary_factor rotary_pct"),
    **_of(_TEXTS, "architectures layer_types layers_block_type mlp_layer_types indexer_types"),
    **_of(_INDEXES, "no_rope_layers attn_type_list attn_layer_indices mlp_only_layers"),
    **_of(_list_of(_POSITIVE_COUNT), "num_attention_heads_per_layer"),
    **_of(_list_of(MAPPING, MAX_LAYERS), "block_configs"),
    **_of(
        _either(_POSITIVE_COUNT, TEXT),
        "sliding_window_pattern _sliding_window_pattern mamba_dt_rank time_step_rank",
    ),
    **_of(_either(_COUNT, _INDEXES), "moe_layer_freq"),
    **_of(_either(TEXT, _INDEXES), "moe_layers_enum"),
    **_of(_either(FLAG, TEXT), "gating"),
}
# Keys of an encoder's part.
ENCODER: Mapping[str, ValueKind] = {
    **_of(TEXT, "model_type"),
    **_of(
        _LAYERS,
        "depth num_hidden_layers vt_num_hidden_layers encoder_layers layers",
    ),
    **_of(_COUNT, "num_global_layers"),
    **_of(_POSITIVE_COUNT, "num_attention_heads num_heads attention_heads vt_num_attention_heads"),
    **_of(
        _POSITIVE_SIZE,
        "hidden_size d_model vt_hidden_size embed_dim width intermediate_size "
        "vt_intermediate_size encoder_ffn_dim",
    ),
    **_of(_either(_POSITIVE_COUNT, _list_of(_POSITIVE_COUNT, 3), MAPPING), "image_size"),
    **_of(
        integer_between(1, 4096), "patch_size temporal_patch_size max_num_tiles spatial_merge_size"
    ),
    **_of(_SIZE, "num_position_embeddings position_embedding_size"),
    **_of(_positive_number(64), "mlp_ratio"),
    **_of(_INDEXES, "intermediate_layers_indices deepstack_visual_indexes"),
}
ROPE: Mapping[str, ValueKind] = {
    **_of(MAPPING, "full_attention sliding_attention chunked_attention"),
    **_of(TEXT, "rope_type type"),
    **_of(_positive_number(4096), "factor"),
    **_of(_positive_number(1e12), "rope_theta"),
    **_of(_positive_number(1), "partial_rotary_factor"),
}
LINEAR_ATTENTION: Mapping[str, ValueKind] = {
    **_of(_POSITIVE_COUNT, "num_heads short_conv_kernel_size"),
    **_of(_POSITIVE_SIZE, "head_dim"),
    **_of(_INDEXES, "full_attn_layers"),
}
SPARSE_ATTENTION: Mapping[str, ValueKind] = {
    **_of(FLAG, "use_sparse_attention"),
    **_of(_INDEXES, "sparse_attention_freq"),
    **_of(_POSITIVE_SIZE, "sparse_index_dim"),
    **_of(_POSITIVE_COUNT, "sparse_num_index_heads"),
}
# Of a pruned model's block.
_BLOCK_ATTENTION: Mapping[str, ValueKind] = {
    **_of(FLAG, "no_op replace_with_linear"),
    **_of(_POSITIVE_COUNT, "n_heads_in_group"),
}
_BLOCK_FFN: Mapping[str, ValueKind] = {
    **_of(FLAG, "no_op"),
    **_of(_positive_number(64), "ffn_mult"),
}
_BLOCK = _of(MAPPING, "attention ffn")
_ENCODERS = ("vision_config", "audio_config", "visual")
# Lists of what is nested in the language model's part, each with its kinds.
_PARTS: Mapping[str, Mapping[str, ValueKind]] = {
    "attn_config": LANGUAGE,
    "ffn_config": LANGUAGE,
    "rope_scaling": ROPE,
    "rope_parameters": ROPE,
    "linear_attn_config": LINEAR_ATTENTION,
    "sparse_attention_config": SPARSE_ATTENTION,
    **dict.fromkeys(_ENCODERS, ENCODER),
}


def check_config(values: Mapping[str, Any], at: str = "") -> None:
    """Check a config, or the part with the language model, and its nested parts except for another
    language model."""
    check_keys(values, LANGUAGE, at)
    for key, kinds in _PARTS.items():
        inner = values.get(key)
        if not isinstance(inner, Mapping):
            continue
        check_keys(inner, kinds, f"{at}{key}.")
        if kinds is ROPE:
            for name, own in inner.items():
                if isinstance(own, Mapping):
                    check_keys(own, ROPE, f"{at}{key}.{name}.")
    for number, block in enumerate(values.get("block_configs") or ()):
        where = f"{at}block_configs[{number}]."
        check_keys(block, _BLOCK, where)
        check_keys(block.get("attention") or {}, _BLOCK_ATTENTION, f"{where}attention.")
        check_keys(block.get("ffn") or {}, _BLOCK_FFN, f"{where}ffn.")


_BITS = integer_between(2, 8)
_GROUP = ValueKind(
    "a whole number from 1, or -1 for whole rows",
    lambda value: is_integer_between(value, 1, 2**20) or is_integer_between(value, -1, -1),
)
_BLOCK_SIDES = ValueKind(
    "a list of two whole numbers above 0",
    lambda value: (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(is_integer_between(side, 1, _MAX_SIZE) for side in value)
    ),
)
_PATHS = _list_of(TEXT, 100_000)
# Of a checkpoint's quantisation, and of a group of its linears.
_QUANTIZATION: Mapping[str, ValueKind] = {
    **_of(TEXT, "quant_method quant_algo kv_cache_quant_algo format expert_dtype"),
    **_of(_BITS, "bits w_bit"),
    **_of(_GROUP, "group_size q_group_size"),
    **_of(_BLOCK_SIDES, "weight_block_size"),
    **_of(FLAG, "load_in_8bit load_in_4bit sym desc_act zero_point"),
    **_of(_PATHS, "ignore modules_to_not_convert exclude_modules ignored_layers"),
    **_of(MAPPING, "config_groups quantized_layers kv_cache_scheme"),
}
_GROUP_OF_LINEARS: Mapping[str, ValueKind] = {
    **_of(_PATHS, "targets"),
    **_of(MAPPING, "weights"),
    **_of(TEXT, "format"),
}
_SCHEME: Mapping[str, ValueKind] = {
    **_of(integer_between(2, 16), "num_bits"),
    **_of(TEXT, "strategy type"),
    **_of(_GROUP, "group_size"),
    **_of(_BLOCK_SIDES, "block_structure"),
    **_of(FLAG, "symmetric"),
}
_LAYER: Mapping[str, ValueKind] = _of(TEXT, "quant_algo")
_REPEATED = re.compile(r"\)[*+{]|\\[1-9]|\(\?P=")
# Published checkpoints have some hundred patterns that are no plain paths, and nine expressions.
_MAX_PATTERNS, _MAX_EXPRESSIONS = 1000, 32


def check_quantization(values: Any, at: str) -> None:
    """Check the quantisation part of a config; `at` is its path."""
    _check_mapping(values, at.rstrip(".: "))
    check_keys(values, _QUANTIZATION, at)
    scheme = values.get("kv_cache_scheme") or {}
    check_keys(scheme, _SCHEME, f"{at}kv_cache_scheme.")
    paths = [
        one
        for key in _QUANTIZATION
        if _QUANTIZATION[key] is _PATHS
        for one in values.get(key) or ()
    ]
    for name, group in (values.get("config_groups") or {}).items():
        where = f"{at}config_groups.{name}"
        _check_mapping(group, where)
        check_keys(group, _GROUP_OF_LINEARS, f"{where}.")
        check_keys(group.get("weights") or {}, _SCHEME, f"{where}.weights.")
        paths += group.get("targets") or ()
    for name, layer in (values.get("quantized_layers") or {}).items():
        where = f"{at}quantized_layers.{name}"
        _check_mapping(layer, where)
        check_keys(layer, _LAYER, f"{where}.")
    _check_patterns([*paths, *(values.get("quantized_layers") or ())], at)


def _check_mapping(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is {short_repr(value)}; it must be a mapping")


def _check_patterns(paths: list[str], at: str) -> None:
    """ValueError for patterns of modules that would take minutes to match."""
    patterns = [one for one in paths if "layers." not in one or "*" in one or one.startswith("re:")]
    expressions = [one for one in patterns if one.startswith("re:")]
    if len(patterns) > _MAX_PATTERNS or len(expressions) > _MAX_EXPRESSIONS:
        raise ValueError(
            f"{at}ignore has {len(patterns)} patterns, {len(expressions)} of them expressions; it "
            f"must have at most {_MAX_PATTERNS} and {_MAX_EXPRESSIONS}"
        )
    for one in expressions:
        if len(one) > 1000 or sum(map(one.count, "*+{")) > 3 or _REPEATED.search(one):
            raise ValueError(
                f"{at}ignore has the expression {one[:60]!r}; it must have at most 1000 characters "
                "and three repetitions, none of a group"
            )
