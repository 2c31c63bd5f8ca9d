"""The GGUF shape that a model of other files would have, to estimate whether it would fit.

Unquantised tensors keep their bytes. llama.cpp does not load other methods' files (AWQ, FP8 …): a
model in one of them is taken in the GGUF type of similar size, which is a file of its own.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from roles.models import (
    GGUF_BITS,
    Attention,
    GgufLayers,
    GgufShape,
    Layer,
    Model,
    Recurrent,
    Weight,
    weight_bytes,
)

# The types that take the place of formats of up to so many bits.
_TYPES = ((5, "q4_k_m"), (9, "q8_0"))


def gguf_type(model: Model) -> str:
    """The type of the GGUF file that a model would have: F16 unless it is quantised."""
    bits = model.quantization.linear.bits if model.quantization else 16
    return next((name for most, name in _TYPES if bits <= most), "f16").upper()


@lru_cache(maxsize=256)
def shape_of(model: Model) -> GgufShape:
    """The shape of the model's GGUF file, or the shape that it would have."""
    if model.gguf is not None:
        return model.gguf
    experts = model.experts
    tied = model.tied_embeddings
    return GgufShape(
        architecture=model.model_type or "unknown",
        context_length=max(1, model.context_limit_tokens),
        embedding_length=model.hidden_size,
        vocabulary_size=max(1, model.vocabulary_size),
        heads=max(1, model.attention_heads),
        feed_forward_length=model.intermediate_size,
        embeddings_bytes=_bytes(model, model.first[:1]),
        output_bytes=_bytes(model, (*model.first[1:], *model.everywhere))
        + (0 if tied else _bytes(model, model.last)),
        layers=tuple(_layer(model, layer) for layer in model.layers),
        tied=tied,
        experts=experts.count if experts else 0,
        experts_used=experts.per_token if experts else 0,
        experts_length=experts.intermediate_size if experts else 0,
    )


def _layer(model: Model, layer: Layer) -> GgufLayers:
    weights = _bytes(model, (one for one in layer.weights if not one.name.endswith("absorbed")))
    mixer = layer.mixer
    if isinstance(mixer, Recurrent):
        numbers = (mixer.conv_kernel - 1) * mixer.conv_channels + mixer.state_elements
        return GgufLayers(1, weights, state_bytes=4 * numbers)
    if not isinstance(mixer, Attention) or not layer.own_kv:
        return GgufLayers(1, weights)
    return GgufLayers(
        1, weights, mixer.kv_heads, mixer.head_size, mixer.value_head_size, mixer.window
    )


def _bytes(model: Model, weights: Iterable[Weight]) -> int:
    return math.ceil(sum(weight_bytes(_converted(one)) for one in weights) * model.scale)


def _converted(weight: Weight) -> Weight:
    kept = weight.format
    name = next((name for most, name in _TYPES if kept.bits <= most), None)
    if name is None or kept.name.startswith("gguf"):
        return weight
    return replace(weight, format=replace(kept, bits=GGUF_BITS[name], scale_bytes=0))
