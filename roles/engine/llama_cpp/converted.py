"""The GGUF shape that a model of other files would have, to estimate whether it would fit.

Tensors keep their bytes: how a conversion quantises them is the owner's choice.
"""

import math
from collections.abc import Iterable
from functools import lru_cache

from roles.models import (
    Attention,
    GgufLayers,
    GgufShape,
    Layer,
    Model,
    Recurrent,
    Weight,
    weight_bytes,
)


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
    return math.ceil(sum(map(weight_bytes, weights)) * model.scale)
