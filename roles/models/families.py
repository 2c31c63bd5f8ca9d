"""Differences between model types that their configs do not state.

Sources: defaults of transformers' configuration classes and vLLM 0.33's model files.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from roles.models.config_keys import MAX_LAYERS
from roles.models.fields import Fields


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Model types whose layers are known here; others are planned from their bytes with a margin.
KNOWN = _names("""
    apertus arcee baichuan bailing_moe bamba bloom chatglm cohere cohere2 dbrx deepseek
    deepseek_v2 deepseek_v3 deepseek_v32 dots1 ernie4_5 ernie4_5_moe exaone exaone4 falcon
    falcon_h1 falcon_mamba gemma gemma2 gemma3 gemma3n gemma4 glm glm4 glm4_moe glm4v glm4v_moe
    glm_moe_dsa gpt2 gpt_bigcode gpt_neox gpt_oss gptj granite granitemoe granitemoehybrid
    hunyuan_v1_dense hunyuan_v1_moe internlm2 internlm3 jamba kimi_k2 kimi_linear laguna lfm2
    llama llama4 longcat_flash mamba mamba2 mimo minicpm minicpm3 minimax minimax_m1 minimax_m2
    minimax_m3 minimax_text_01 ministral3 mistral mixtral mllama mpt muse_glimmer nemotron
    nemotron-nas nemotron_h olmo olmo2 olmo3 olmoe opt orion persimmon phi phi3 phi3_v phimoe
    qwen qwen2 qwen2_5_omni qwen2_5_vl qwen2_moe qwen2_vl qwen3 qwen3_5 qwen3_5_moe qwen3_moe
    qwen3_next qwen3_vl qwen3_vl_moe seed_oss smollm3 solar stablelm starcoder2 step3 yi
    """)
# Text models with an encoder beside the decoder: vLLM serves none since 0.10.2 (`registry.py`).
ENCODER_DECODERS = _names("""
    t5 mt5 umt5 longt5 switch_transformers bart mbart pegasus bigbird_pegasus m2m_100 marian led
    blenderbot plbart prophetnet florence2
    """)
# Parts of a head of latent attention, by their classes' defaults or as in all published models.
_LATENT_SIZES = {"qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
_LATENT = _names("""
    deepseek_v2 deepseek_v3 deepseek_v32 glm_moe_dsa kimi_k2 kimi_linear longcat_flash
    """)
# Defaults of transformers for keys that published configs omit.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    "mistral": {"vocab_size": 32000, "num_key_value_heads": 8},
    "gemma": {"head_dim": 256, "vocab_size": 256000, "max_position_embeddings": 8192},
    "gemma2": {"head_dim": 256, "sliding_window": 4096, "max_position_embeddings": 8192},
    "gemma3": {
        "head_dim": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 262208,
        "sliding_window": 4096,
        "max_position_embeddings": 131072,
    },
    "opt": {"vocab_size": 50272, "max_position_embeddings": 2048},
    "mpt": {"vocab_size": 50368, "max_position_embeddings": 2048},
    "granite": {"max_position_embeddings": 131072},
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "llama4": {"attention_chunk_size": 8192},
    "phi": {"vocab_size": 51200},
    "mamba": {"vocab_size": 50280},
    "mamba2": {"vocab_size": 32768},
    "falcon_mamba": {"vocab_size": 65024},
    "qwen2": {
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
    },
}
# Published Granite models tie theirs although the class's default is not to.
TIED_BY_DEFAULT = _names("""
    bert bloom cohere cohere2 falcon gemma gemma2 gemma3 gemma3n gemma4 gpt2 gpt_bigcode granite
    lfm2 mamba minicpm minicpm3 mpt opt phi3small roberta smollm3 starcoder2 whisper xlm-roberta
    """)
# Every linear has a bias, and feed-forward blocks have two matrices.
_BIASED = _names("""
    bert bloom gpt2 gpt_bigcode gpt_neox opt persimmon phi roberta starcoder2 whisper xlm-roberta
    """)
BIASED_QKV = _BIASED | _names("qwen qwen2 qwen2_5_omni qwen2_5_vl qwen2_moe qwen2_vl")
BIASED_OUTPUT = _BIASED | _names("gpt_oss mimo_v2")
BIASED_MLP = _BIASED | _names("gptj")
UNGATED = BIASED_MLP | _names("apertus arcee falcon mpt nemotron nemotron_h")
NO_ROTARY = _BIASED - _names("gpt_neox persimmon phi starcoder2") | _names("jamba mpt nemotron_h")
# Learned positions, in a table.
POSITIONS = _BIASED & NO_ROTARY - _names("bloom")
# These read a whole text at once and keep nothing of it.
ENCODERS = _names("bert roberta xlm-roberta")
# A layer holds two mixers, which are planned as layers of their own.
_TWO_MIXERS = _names("falcon_h1 longcat_flash whisper")
FOUR_NORMS = _names("gemma2 gemma3 gemma3n gemma4 muse_glimmer glm4")
QK_NORM: Mapping[str, str] = {
    **dict.fromkeys(_names("qwen3 qwen3_moe qwen3_next qwen3_vl qwen3_vl_moe"), "head"),
    **dict.fromkeys(
        ["apertus", "qwen3_5", "qwen3_5_moe", "gemma3", "gemma3n", "gemma4", "exaone4", "laguna"],
        "head",
    ),
    **dict.fromkeys(_names("olmo2 olmo3 olmoe minimax_m2"), "all"),
}
_SPARSE_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_NAMES = {
    "full_attention": "full",
    "attention": "full",
    "global": "full",
    "sliding_attention": "sliding",
    "sliding": "sliding",
    "local": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "gdn",
    "conv": "short_conv",
    "mamba": "mamba2",
}
# A letter a layer in NemotronH's pattern: mixer and feed-forward block are layers of their own.
_PATTERN = {"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}


def expert_count(fields: Fields) -> int:
    """Routed experts of a sparse layer; 0 for a dense model."""
    return fields.integer(*_SPARSE_KEYS, default=0, least=0)


def unknown_experts(fields: Fields) -> str:
    """The first key that speaks of experts where none that is read does; "" for known kinds."""
    if fields.model_type in KNOWN or expert_count(fields):
        return ""
    return next(
        (
            key
            for key, value in fields.values.items()
            if value and re.search(r"expert|(^|_)moe(_|$)", key)
        ),
        "",
    )


def latent_size(fields: Fields, part: str) -> int:
    """The size of a part of a head of latent attention; ValueError where an unknown kind says
    none."""
    default = _LATENT_SIZES[part] if fields.model_type in _LATENT else None
    return fields.integer(part, default=default)


def kv_head_count(fields: Fields, heads: int) -> int:
    """The number of KV heads; by default that of the query heads."""
    if fields.model_type == "falcon" and not fields.get("new_decoder_architecture"):
        return 1 if fields.get("multi_query", default=True) else heads
    if fields.model_type == "gpt_bigcode":
        return 1 if fields.get("multi_query", default=True) else heads
    return fields.integer(
        "num_key_value_heads",
        "num_kv_heads",
        "n_head_kv",
        "num_attention_groups",
        "multi_query_group_num",
        "num_query_groups",
        default=heads,
    )


def layer_count(fields: Fields) -> int:
    """The number of decoder layers; for a model that lists its layers, the length of the list."""
    blocks = block_types(fields)
    if blocks:
        return len(blocks)
    count = fields.integer("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    return 2 * count if fields.model_type in _TWO_MIXERS else count


def block_types(fields: Fields) -> list[str] | None:
    """NemotronH's layers, each only a mixer or a feed-forward block; None for other models."""
    if fields.model_type != "nemotron_h":
        return None
    listed = fields.listed("layers_block_type")
    if listed:
        return _check_known("layers_block_type", listed, _PATTERN.values(), fields)
    pattern = str(fields.get("hybrid_override_pattern", default=""))
    if unknown := set(pattern) - set(_PATTERN):
        raise ValueError(
            f"hybrid_override_pattern has {''.join(sorted(unknown))[:20]!r}; use the letters M, E, "
            "- and *"
        )
    if len(pattern) > MAX_LAYERS:
        raise ValueError(
            f"hybrid_override_pattern has {len(pattern)} layers; it must have at most {MAX_LAYERS}"
        )
    return [_PATTERN[letter] for letter in pattern]


def _check_known(
    key: str, listed: Sequence[str], words: Iterable[str], fields: Fields
) -> list[str]:
    """The list; ValueError if it has an unknown word."""
    known = tuple(dict.fromkeys(words))
    for word in listed:
        if word not in known:
            raise ValueError(
                f"{fields.at}{key} has {word[:60]!r}; it must have one of {', '.join(known)} for "
                "each layer"
            )
    return list(listed)


def attention_kinds(fields: Fields, count: int, context_limit: int) -> list[str]:
    """The kind of each layer's mixer: full, sliding, chunked, mla, gdn, kda, mamba1 … or none."""
    if blocks := block_types(fields):
        kinds = {"attention": "full", "mamba": "mamba2"}
        return [kinds.get(kind, "none") for kind in blocks]
    if linear := fields.mapping("linear_attn_config"):
        full = set(linear.get("full_attn_layers") or ())
        return ["mla" if i + 1 in full else "kda" for i in range(count)]
    if fields.get("kv_lora_rank"):
        return ["mla"] * count
    if fields.model_type in ("mamba", "falcon_mamba"):
        return ["mamba1"] * count
    if fields.model_type == "mamba2":
        return ["mamba2"] * count
    if fields.model_type == "falcon_h1":
        return ["full", "mamba2"] * (count // 2)
    if fields.model_type == "bamba":
        attention = set(fields.listed("attn_layer_indices") or ())
        return ["full" if i in attention else "mamba2" for i in range(count)]
    if types := fields.listed("attn_type_list", length=count):
        return ["full" if kind == 1 else "lightning" for kind in types[:count]]
    listed = fields.listed("layer_types", "layers_block_type", length=count)
    if listed:
        if fields.model_type in KNOWN:
            key = "layer_types" if fields.get("layer_types") else "layers_block_type"
            _check_known(key, listed, _NAMES, fields)
        names = {**_NAMES, "linear_attention": "lightning"} if _lightning(fields) else _NAMES
        kinds = [names.get(str(kind), "full") for kind in listed[:count]]
    else:
        kinds = _attention_kinds_by_rule(fields, count)
    window = fields.get("sliding_window", "sliding_window_size")
    # A window that is longer than any request is full attention.
    if not window or (isinstance(window, int) and window >= context_limit):
        kinds = ["full" if kind == "sliding" else kind for kind in kinds]
    return kinds


def _lightning(fields: Fields) -> bool:
    """Whether the linear attention is MiniMax's, which has no size keys."""
    return fields.model_type == "minimax"


def _attention_kinds_by_rule(fields: Fields, count: int) -> list[str]:
    kind = fields.model_type
    if kind not in KNOWN:
        # Windows of an unknown kind are ignored: keeping every token is a safe estimate.
        return ["full"] * count
    if kind == "jamba":
        period = fields.integer("attn_layer_period", default=8)
        offset = fields.integer("attn_layer_offset", default=4, least=0)
        return ["full" if i % period == offset else "mamba1" for i in range(count)]
    interval = fields.get("full_attention_interval")
    if interval:
        every = fields.integer("full_attention_interval")
        return ["full" if (i + 1) % every == 0 else "gdn" for i in range(count)]
    if kind == "gemma2":
        return ["full" if i % 2 else "sliding" for i in range(count)]
    if kind == "llama4":
        none = fields.listed("no_rope_layers")
        step = 4
        return [
            ("chunked" if none[i] else "full")
            if none
            else "full"
            if (i + 1) % step == 0
            else "chunked"
            for i in range(count)
        ]
    pattern = fields.get("sliding_window_pattern", "_sliding_window_pattern")
    if pattern is None and kind in ("gemma3", "cohere2"):
        pattern = 6 if kind == "gemma3" else 4
    if isinstance(pattern, int):
        return ["full" if (i + 1) % pattern == 0 else "sliding" for i in range(count)]
    if isinstance(pattern, str) and pattern:
        return ["sliding" if pattern[i % len(pattern)] == "L" else "full" for i in range(count)]
    sliding = fields.get("sliding_window") and fields.get("use_sliding_window", default=True)
    # Qwen's classes use the window only if the config enables it.
    if sliding and (kind.startswith("qwen") or kind == "mimo"):
        sliding = fields.get("use_sliding_window") is True
    return ["sliding" if sliding else "full"] * count


def mlp_kinds(fields: Fields, count: int) -> list[str]:
    """The kind of each layer's feed-forward block: dense, experts or none."""
    if blocks := block_types(fields):
        kinds = {"moe": "experts", "mlp": "dense"}
        return [kinds.get(kind, "none") for kind in blocks]
    if fields.model_type in ("mamba", "mamba2", "falcon_mamba"):
        return ["none"] * count
    if fields.model_type == "zamba2":
        # Only some layers have attention and its feed-forward block.
        listed = fields.listed("layers_block_type", length=count) or ["hybrid"] * count
        return ["dense" if kind == "hybrid" else "none" for kind in listed[:count]]
    if fields.model_type in ("falcon_h1", "whisper"):
        return ["none", "dense"] * (count // 2)
    if fields.model_type == "longcat_flash":
        return ["experts", "dense"] * (count // 2)
    if not expert_count(fields):
        return ["dense"] * count
    if listed := fields.listed("mlp_layer_types", length=count):
        _check_known("mlp_layer_types", listed, ("sparse", "dense"), fields)
        return ["experts" if kind == "sparse" else "dense" for kind in listed[:count]]
    if named := fields.get("moe_layers_enum"):
        words = named.split(",") if isinstance(named, str) else map(str, named)
        sparse = set(words)
        return ["experts" if str(i) in sparse else "dense" for i in range(count)]
    return ["experts" if _has_experts(fields, i) else "dense" for i in range(count)]


def _has_experts(fields: Fields, index: int) -> bool:
    frequency = fields.get("moe_layer_freq")
    if isinstance(frequency, list):
        return index < len(frequency) and bool(frequency[index])
    dense = fields.get("first_k_dense_replace", default=0)
    if index < dense or index in (fields.get("mlp_only_layers") or ()):
        return False
    if fields.model_type == "jamba":
        period = fields.integer("expert_layer_period", default=2)
        return index % period == fields.integer("expert_layer_offset", default=1, least=0)
    if fields.model_type == "llama4":
        step = fields.integer("interleave_moe_layer_step", default=1)
        return (index + 1) % step == 0
    if fields.model_type == "ernie4_5_moe":
        start = fields.integer("moe_layer_start_index", default=0, least=0)
        return index >= start and (index + 1) % fields.integer("moe_layer_interval", default=1) == 0
    step = frequency if isinstance(frequency, int) and frequency > 0 else 0
    step = step or fields.integer("decoder_sparse_step", default=1)
    return (index + 1) % step == 0 if "decoder_sparse_step" in fields.values else index % step == 0
