"""Vision and audio encoders of multimodal models, by the shapes of their configs.

vLLM splits most encoders over tensor parallel like the language model, and runs some whole on every
GPU. Sources: transformers' model files, vLLM 0.32 `model_executor/models`; an encoder that is not
known is taken for an ordinary vision transformer.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from roles.models.fields import Fields
from roles.models.model import Encoder, Model, Split, Weight
from roles.models.parameters import Builder

_GATED = frozenset(("qwen2_5_vl", "qwen2_5_omni_vision_encoder", "pixtral", "gemma4_vision"))
# Whole on every GPU: Pixtral's, as logs at TP4 show, and those that vLLM takes from transformers
# (`gemma4_mm.py`, `gemma3n_mm.py`).
_WHOLE = frozenset(("pixtral", "gemma4_vision", "gemma3n_vision"))
_HEADS = ("num_attention_heads", "num_heads", "attention_heads", "vt_num_attention_heads")
_WIDTHS = ("hidden_size", "d_model", "vt_hidden_size", "width")
_INNER = ("intermediate_size", "vt_intermediate_size", "encoder_ffn_dim")
# Defaults of transformers for missing keys.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "siglip_vision_model": {"image_size": 224, "patch_size": 16},
    "clip_vision_model": {"image_size": 224, "patch_size": 32},
    "pixtral": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24},
    "qwen2_vl": {"embed_dim": 1280, "mlp_ratio": 4, "depth": 32},
}


def vision_encoder(config: Mapping[str, Any]) -> Encoder | None:
    """What tensor parallel must divide of a model's vision encoder; None without a split one."""
    source = _source(config)
    own = source.get("vision_config")
    if not isinstance(own, Mapping):
        return None
    kind = _kind(own, source)
    fields = _fields("vision", kind, own)
    if kind in _WHOLE:
        return None
    # InternViT's attention runs whole where its heads do not divide (`intern_vit.py`).
    heads = 0 if kind.startswith("intern_vit") else fields.integer(*_HEADS, default=0)
    inner = fields.integer(*_INNER, default=0, least=0)
    if not inner and fields.get("mlp_ratio"):
        inner = int(_width(kind, fields) * fields.get("mlp_ratio"))
    return Encoder(heads, inner)


def with_whole_encoder(model: Model) -> Model:
    """The model with its encoders whole on every GPU, as with `--mm-encoder-tp-mode data`."""
    whole = tuple(replace(weight, split="replicated") for weight in model.everywhere)
    return replace(model, encoder=None, everywhere=whole)


def _source(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that has the encoders."""
    inner = config.get("thinker_config")
    return inner if isinstance(inner, Mapping) else config


def _kind(own: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    return str(own.get("model_type") or config.get("model_type") or "")


def _fields(name: str, kind: str, own: Mapping[str, Any]) -> Fields:
    return Fields({**_DEFAULTS.get(kind, {}), **own}, own, f"{name}_config.")


def _width(kind: str, fields: Fields) -> int:
    # Qwen2-VL's hidden_size is that of the language model.
    return fields.integer("embed_dim") if kind == "qwen2_vl" else fields.integer(*_WIDTHS)


def encoder_weights(config: Mapping[str, Any], build: Builder) -> list[Weight]:
    """The tensors of a model's encoders and of the projector to the language model; may be
    empty."""
    source = _source(config)
    made: list[Weight] = []
    for key in ("vision_config", "audio_config", "visual"):
        own = source.get(key)
        if isinstance(own, Mapping) and own:
            made += _encoder(key.split("_")[0], own, source, build)
    if config.get("model_type") == "whisper":
        made += _encoder("audio", {**config, "num_hidden_layers": None}, config, build)
    if config.get("model_type") == "phi3_v":
        made += _encoder("vision", _CLIP_LARGE, config, build)
    return made


# Parameters of Gemma 3n's encoder (MobileNet-V5-300M), whose config has no sizes.
_MOBILENET_V5 = 300_000_000
_CLIP_LARGE = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "image_size": 336,
    "patch_size": 14,
}


def _encoder(
    name: str, own: Mapping[str, Any], config: Mapping[str, Any], build: Builder
) -> list[Weight]:
    kind = _kind(own, config)
    fields = _fields(name, kind, own)
    if kind == "gemma3n_vision":
        return build.unquantised("vision_tower.mobilenet", _MOBILENET_V5)
    if not fields.get(*_WIDTHS, "embed_dim"):
        # The size is unknown; the language model's margin must cover it.
        return []
    width = _width(kind, fields)
    depth = fields.integer(
        "depth",
        "num_hidden_layers",
        "vt_num_hidden_layers",
        "encoder_layers",
        "layers",
        default=24,
    )
    depth += fields.integer("num_global_layers", default=0, least=0)
    ratio = fields.get("mlp_ratio", default=4)
    inner = fields.integer(*_INNER, default=int(width * ratio))
    gated = kind in _GATED
    path = Builder(build.fields, build.formats, build.plain, width, f"{name}_tower.")
    outputs: Split = "replicated" if kind in _WHOLE else "outputs"
    inputs: Split = "replicated" if kind in _WHOLE else "inputs"
    # An odd number of heads divides by no usual number of GPUs.
    whole = kind.startswith("intern_vit") and fields.integer(*_HEADS, default=16) % 2
    made: list[Weight] = []
    for _ in range(depth):
        made += path.unquantised("qkv", 3 * width, width, "replicated" if whole else outputs)
        made += path.unquantised("proj", width, width, "replicated" if whole else inputs)
        made += path.unquantised("up", inner * (1 + gated), width, outputs)
        made += path.unquantised("down", width, inner, inputs)
        made += path.unquantised("norms", 9 * width + inner)
    return made + _edges(kind, width, fields, config, path, build.hidden)


def _edges(
    kind: str,
    width: int,
    fields: Fields,
    config: Mapping[str, Any],
    path: Builder,
    hidden: int,
) -> list[Weight]:
    """Patch and position embeddings, and the projector."""
    patch = fields.integer("patch_size", default=14)
    channels = 3 * fields.integer("temporal_patch_size", default=1)
    made = path.unquantised("patch_embed", width, channels * patch * patch)
    positions = fields.get("num_position_embeddings", "position_embedding_size")
    image = fields.get("image_size")
    if positions is None and isinstance(image, int) and kind != "pixtral":
        positions = (image // patch) ** 2
    if isinstance(positions, int):
        made += path.unquantised("position_embed", positions, width)
    if kind == "mllama_vision_model":
        # Tile embeddings for 8 aspect ratios and for none, and the concatenated levels.
        tiles = fields.integer("max_num_tiles", default=4)
        levels = 1 + len(fields.get("intermediate_layers_indices", default=[]))
        made += path.unquantised("tile_embed", 9 * tiles * (int(positions or 0) + 3), width)
        made += path.unquantised("projector", hidden, levels * width)
        return made
    if kind.startswith("intern_vit"):
        # Four patches become one (`downsample_ratio` 0.5).
        made += path.unquantised("projector.up", hidden, 4 * width)
        made += path.unquantised("projector.down", hidden, hidden)
        return made
    merge = fields.get("spatial_merge_size") or config.get("spatial_merge_size") or 1
    wide = width * int(merge) ** 2
    if kind.startswith("qwen") or "merge" in kind:
        mergers = 1 + len(fields.get("deepstack_visual_indexes", default=[]))
        for _ in range(mergers):
            made += path.unquantised("merger.up", wide, wide, "outputs")
            made += path.unquantised("merger.down", hidden, wide, "inputs")
        return made
    if wide > width:
        made += path.unquantised("merger", width, wide)
    made += path.unquantised("projector.up", hidden, width)
    if kind in ("clip_vision_model", "pixtral"):
        made += path.unquantised("projector.down", hidden, hidden)
    return made
