"""Converts a model's config.json to a `Model`.

Keys and defaults are those of transformers and of vLLM 0.33
(`transformers_utils/model_arch_config_convertor.py`, `config/model.py`).
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from roles.models.families import (
    DEFAULTS,
    ENCODER_DECODERS,
    KNOWN,
    NO_ROTARY,
    POSITIONS,
    TIED_BY_DEFAULT,
    UNGATED,
    expert_count,
    latent_size,
    layer_count,
    unknown_experts,
)
from roles.models.fields import MAX_INTEGER, Fields, text_fields
from roles.models.layers import decoder_layers
from roles.models.model import Attention, Format, Layer, Model, Weight
from roles.models.parameters import Builder
from roles.models.quantization import read_quantization
from roles.models.vision import encoder_weights, vision_encoder
from roles.models.weights import checkpoint_bytes

# The margin for a model of an unknown kind: a guess, and warned about.
UNKNOWN_MARGIN = 0.05
# The shapes are trusted if the checkpoint's bytes differ from theirs by less than this.
SHAPES_SURE = 0.03
# The maximum factor between a checkpoint's bytes and those of its shapes.
MAX_DEVIATION = 64
_LIMITS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# These leave max_position_embeddings as it is; others multiply it.
_UNSCALED = frozenset(
    ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default")
)
_DTYPES = {"half": "float16", "float": "float32", "fp16": "float16", "bf16": "bfloat16"}
_ALIASES = {
    "hidden_size": ("n_embd", "n_embed", "d_model", "dim"),
    "num_attention_heads": ("n_head", "n_heads", "decoder_attention_heads", "num_heads"),
    "intermediate_size": (
        *("ffn_dim", "n_inner", "ffn_hidden_size", "hidden_dim"),
        *("ff_intermediate_size", "decoder_ffn_dim"),
    ),
    "num_hidden_layers": ("n_layer", "num_layers", "n_layers", "decoder_layers"),
    "vocab_size": ("padded_vocab_size",),
    "rms_norm_eps": ("norm_eps",),
    "num_key_value_heads": ("n_kv_heads", "kv_n_heads"),
    "num_experts": ("moe_num_experts",),
    "num_experts_per_tok": ("moe_k", "moe_top_k"),
}
# Parts of the config where DBRX and MPT have some sizes.
_PARTS = ("attn_config", "ffn_config")
# Classes whose names end in Model although they have a head.
_GENERATING = ("LMHeadModel", "ChatModel", "ChatGLMModel")
# Keys that some models give for each layer; the largest value is a safe choice.
_BY_LAYER = ("intermediate_size", "moe_intermediate_size", "moe_topk", "num_shared_expert")


def parse_config(
    config: Mapping[str, Any],
    *,
    model_id: str = "",
    weights_bytes: int | None = None,
    quantization: str | None = None,
    dtype: str | None = None,
    hf_quant: Mapping[str, Any] | None = None,
) -> Model:
    """The model that a config.json describes.

    `weights_bytes` are the exact bytes of the checkpoint's tensors, if known (the
    `total_size` of model.safetensors.index.json). `quantization` and `dtype` are the engine's
    options (`--quantization`, `--dtype`); `quantization` counts if the checkpoint is not quantised
    itself. `hf_quant` is NVIDIA's hf_quant_config.json. The ValueError names the missing or wrong
    key and the remedy.
    """
    try:
        return _build_model(config, model_id, weights_bytes, quantization, dtype, hf_quant)
    except (TypeError, KeyError, AttributeError, IndexError, ArithmeticError) as error:
        # A config is untrusted JSON.
        raise ValueError(
            f"cannot be read ({type(error).__name__}: {error}); take the config.json that the "
            "model is published with"
        ) from error


def _build_model(
    config: Mapping[str, Any],
    model_id: str,
    weights_bytes: int | None,
    quantization: str | None,
    dtype: str | None,
    hf_quant: Mapping[str, Any] | None,
) -> Model:
    fields = _checked_fields(config, weights_bytes)
    formats = read_quantization(_quantization_of(fields), hf_quant, quantization)
    kind = _dtype(fields, dtype)
    plain = Format(kind, 32 if kind == "float32" else 16)
    build = Builder(fields, formats, plain, fields.integer("hidden_size"))
    limit = context_limit(fields)
    layers = decoder_layers(build, layer_count(fields), limit)
    first, last, tied = _embeddings(build, layers)
    warnings = _warnings(fields, model_id, weights_bytes)
    on_every_stage = tuple(encoder_weights(config, build))
    model = Model(
        id=model_id or str(config.get("_name_or_path") or ""),
        architectures=tuple(config.get("architectures") or fields.get("architectures") or ()),
        model_type=fields.model_type,
        hidden_size=build.hidden,
        vocabulary_size=fields.integer("vocab_size"),
        context_limit_tokens=limit,
        layers=layers,
        first=first,
        last=last,
        everywhere=on_every_stage,
        tied_embeddings=tied,
        quantization=formats.quantization,
        dtype=kind,
        weights_bytes=weights_bytes,
        rope_bytes=_rope_bytes(fields, layers),
        encoder=vision_encoder(config),
        warnings=warnings,
    )
    model = replace(model, exact=not warnings, margin=UNKNOWN_MARGIN if warnings else 0.0)
    # The tensors of a GGUF file are counted, so its shapes need not match.
    is_counted = (quantization or "").startswith("gguf")
    return _scaled(model, plain, is_counted) if weights_bytes else model


def _checked_fields(config: Mapping[str, Any], weights_bytes: int | None) -> Fields:
    """The fields of a config; ValueError where they are no decoder's that can be planned."""
    text_values = text_fields(config)
    _check_is_a_config(text_values)
    fields = _with_defaults(text_values)
    _check_decodes(fields)
    unread = unknown_experts(fields)
    if unread and not weights_bytes:
        raise ValueError(
            f"{fields.at}{unread} speaks of experts in words that are not known here; give the "
            "exact weights_bytes, to plan the model from them"
        )
    return fields


def _scaled(model: Model, plain: Format, is_counted: bool) -> Model:
    """The model with its shapes scaled to its exact bytes; ValueError where they are far apart and
    not counted."""
    scale = _scale(model, plain)
    if not is_counted and not 1 / MAX_DEVIATION < scale < MAX_DEVIATION:
        raise ValueError(
            f"weights_bytes is {model.weights_bytes}; it must be near to what the sizes make, "
            f"{checkpoint_bytes(model)} bytes: those of all files together"
        )
    return replace(model, scale=scale)


def _check_is_a_config(fields: Fields) -> None:
    """ValueError for a mapping that is not a model's config: defaults would turn it into a
    model."""
    sized = fields.get("hidden_size", *_ALIASES["hidden_size"]) is not None
    named = fields.model_type or fields.outer.get("architectures")
    if not sized and (fields.values is fields.outer or not named):
        raise ValueError(
            f"{fields.at}hidden_size is missing{'' if named else ', and so is model_type'}; take "
            "the config.json that the model is published with"
        )


def _check_decodes(fields: Fields) -> None:
    """ValueError for a model whose answers come from an encoder and a decoder, as T5's."""
    kind = fields.model_type
    if kind in ENCODER_DECODERS or (fields.anywhere("is_encoder_decoder") and kind not in KNOWN):
        raise ValueError(
            f"{fields.at}is_encoder_decoder: {kind or 'this model'} is an encoder-decoder, which "
            "no engine here serves; name a model that only decodes"
        )


def _scale(model: Model, plain: Format) -> float:
    """The factor from the shapes' bytes to those of the checkpoint, quantised or not.

    It is 1 for a checkpoint of a known kind with a small difference: that is data which the engine
    does not load (MTP layers, buffers).
    """
    stated_bytes = model.weights_bytes or 1
    whole = checkpoint_bytes(model)
    unquantised = checkpoint_bytes(_unquantised(model, plain))
    found = min((whole, unquantised), key=lambda count: abs(math.log(stated_bytes / count)))
    ratio = stated_bytes / found
    return 1.0 if model.exact and 1 - SHAPES_SURE < ratio < 1 + SHAPES_SURE else ratio


def _unquantised(model: Model, plain: Format) -> Model:
    if model.quantization is None:
        return model

    def kept(weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
        return tuple(replace(weight, format=plain) for weight in weights)

    layers = tuple(replace(layer, weights=kept(layer.weights)) for layer in model.layers)
    return replace(model, layers=layers, first=kept(model.first), last=kept(model.last))


def _with_defaults(fields: Fields) -> Fields:
    """The fields under our names, with the defaults of transformers."""
    parts = [fields.values.get(key) for key in _PARTS]
    values: dict[str, Any] = {}
    for part in parts:
        values |= part if isinstance(part, Mapping) else {}
    values = {key: value for key, value in values.items() if key != "model_type"}
    values |= fields.values
    for name, others in _ALIASES.items():
        if values.get(name) is None:
            found = next((values[key] for key in others if values.get(key) is not None), None)
            if found is not None:
                values[name] = found
    if "model_type" not in values and not fields.outer.get("model_type"):
        values["model_type"] = _type_by_architecture(fields.outer)
    known = Fields(values, fields.outer, fields.at)
    kind = known.model_type
    for name, default in DEFAULTS.get(kind, {}).items():
        if values.get(name) is None:
            values[name] = default
    for name in _BY_LAYER:
        if isinstance(values.get(name), list):
            values[name] = max(values[name], default=None)
    ungated_by_default = kind in UNGATED or kind not in KNOWN
    dense = not expert_count(known)
    if values.get("intermediate_size") is None and dense and ungated_by_default:
        values["intermediate_size"] = 4 * known.integer("hidden_size")
    return Fields(values, fields.outer, fields.at)


def _type_by_architecture(outer: Mapping[str, Any]) -> str:
    """The model type if a shortened config lacks it: the start of its architecture's name."""
    names = outer.get("architectures") or [""]
    stem = str(names[0]).split("For")[0].removesuffix("LMHeadModel").lower().replace("_", "")
    kinds = (*KNOWN, *DEFAULTS, *ENCODER_DECODERS)
    return next((kind for kind in kinds if kind.replace("_", "") == stem), "")


def _quantization_of(fields: Fields) -> Mapping[str, Any]:
    found = fields.anywhere("quantization_config", "compression_config", default={})
    if found and fields.get("expert_dtype") == "fp4":
        return {**found, "expert_dtype": "fp4"}
    return found


def _dtype(fields: Fields, requested: str | None) -> str:
    """The dtype that vLLM serves in; float32 checkpoints are served in 16 bits."""
    stated = (
        requested if requested and requested != "auto" else fields.anywhere("dtype", "torch_dtype")
    )
    name = str(stated or "bfloat16").removeprefix("torch.")
    name = _DTYPES.get(name, name)
    if name == "float32" and (not requested or requested == "auto"):
        return "float16"
    if name not in ("float16", "bfloat16", "float32"):
        raise ValueError(f"dtype is {stated!r}; use float16, bfloat16 or float32")
    return name


def has_context_limit(config: Mapping[str, Any]) -> bool:
    """Whether a config limits the length of requests; without a limit vLLM accepts any setting."""
    fields = text_fields(config)
    return any(fields.get(name) for name in _LIMITS)


def context_limit(fields: Fields) -> int:
    """The longest request in tokens that vLLM allows by default."""
    limits = [fields.integer(name) for name in _LIMITS if fields.get(name)]
    # Command R's limit is the larger of its two values.
    limit = fields.integer("model_max_length", default=min(limits, default=2048))
    scale = 1.0
    if "gemma3" not in fields.model_type:
        for rope in _ropes(fields):
            kind = rope.get("rope_type") or rope.get("type") or "default"
            if kind not in _UNSCALED and rope.get("factor"):
                scale = float(rope["factor"])
    if limit * scale > MAX_INTEGER:
        raise ValueError(
            f"max_position_embeddings is {limit}, {scale:g} times as much by rope_scaling.factor; "
            f"it must be at most {MAX_INTEGER}"
        )
    return int(limit * scale)


def _ropes(fields: Fields) -> list[Mapping[str, Any]]:
    """The rotary embeddings of a model; a model with sliding windows may have two."""
    found = fields.mapping("rope_parameters", "rope_scaling") or {}
    nested = [value for value in found.values() if isinstance(value, Mapping)]
    return nested or [found]


def _rope_bytes(fields: Fields, layers: tuple[Layer, ...]) -> int:
    """Rotary tables: cosines and sines for each position, one table for each kind of layer.

    With linear scaling a table is longer than the context if the config's limit is already scaled
    (Gemma 3: eight times); local layers have an unscaled one.
    """
    if fields.model_type in NO_ROTARY:
        return 0
    limits = [fields.integer(name) for name in _LIMITS if fields.get(name)]
    ropes = fields.mapping("rope_parameters", "rope_scaling") or {}
    share = float(fields.get("partial_rotary_factor", "rotary_pct", default=1.0))
    tables = set()
    for layer in layers:
        mixer = layer.mixer
        if not isinstance(mixer, Attention):
            continue
        local = mixer.kind == "sliding" and fields.model_type.startswith("gemma3")
        own = {} if local else ropes.get(f"{mixer.kind}_attention") or ropes
        part = float(own.get("partial_rotary_factor") or share)
        scaled = (own.get("rope_type") or own.get("type")) == "linear"
        positions = min(limits, default=2048) * (float(own.get("factor") or 1) if scaled else 1)
        if mixer.kind == "mla":
            size, part = latent_size(fields, "qk_rope_head_dim"), 1.0
        else:
            size = mixer.head_size
        # Gemma 4 keeps full rows even for layers with partial rotation.
        size = size if own.get("rope_type") == "proportional" else int(size * part)
        base = own.get("rope_theta") or fields.get("rope_theta")
        tables.add((int(positions) * size, local, scaled, base))
    return sum(2 * numbers for numbers, *_ in tables)


def _embeddings(
    build: Builder, layers: tuple[Layer, ...]
) -> tuple[tuple[Weight, ...], tuple[Weight, ...], bool]:
    """The tensors of the first and the last stage, and whether the embedding is tied."""
    fields, hidden = build.fields, build.hidden
    vocabulary = fields.integer("vocab_size")
    stated = fields.get("tie_word_embeddings")
    stated = fields.outer.get("tie_word_embeddings") if stated is None else stated
    tied = fields.model_type in TIED_BY_DEFAULT if stated is None else bool(stated)
    table = build.formats.head or build.plain
    first = [Weight("embed_tokens", vocabulary, hidden, table, "vocabulary")]
    if per_layer := fields.integer("hidden_size_per_layer_input", default=0, least=0):
        rows = fields.integer("vocab_size_per_layer_input", default=vocabulary)
        width = per_layer * len(layers)
        first.append(Weight("embed_tokens_per_layer", rows, width, table, "vocabulary"))
        first += build.linear("per_layer_model_projection", width, hidden)
    if fields.model_type in POSITIONS:
        rows = fields.integer("max_position_embeddings", "n_positions", default=2048) + 2
        first += build.unquantised("embed_positions", rows, hidden)
    last = build.unquantised("norm", hidden)
    names = fields.outer.get("architectures") or fields.get("architectures") or ["ForCausalLM"]
    # An embedding model (MistralModel …) has no head.
    headless = str(names[0]).endswith("Model") and not str(names[0]).endswith(_GENERATING)
    if not tied and not headless:
        head = build.formats.of("lm_head") if build.formats.quantization else None
        # A method quantises the head only if it names it.
        named = any("lm_head" in targets for targets, _ in build.formats.groups)
        format = build.formats.head or (head if named and head else build.plain)
        last.append(Weight("lm_head", vocabulary, hidden, format, "vocabulary"))
        if fields.model_type in ("phi", "gptj"):
            last += build.unquantised("lm_head.bias", vocabulary)
    return tuple(first), tuple(last), tied


def _warnings(fields: Fields, model_id: str, weights_bytes: int | None) -> tuple[str, ...]:
    kind = fields.model_type
    if kind in KNOWN:
        return ()
    unread = unknown_experts(fields)
    experts = (
        (f"{unread} is not read: experts are counted by the weights' bytes alone",)
        if unread
        else ()
    )
    name = model_id or "the model"
    remedy = " than its files have"
    if not weights_bytes:
        remedy = "; give its exact weight bytes to be surer"
    return (
        f"{name} is of an unknown kind ({kind or 'no model_type'}): planned as an ordinary "
        f"decoder that keeps every token, with {UNKNOWN_MARGIN:.0%} more weights{remedy}",
        *experts,
    )
