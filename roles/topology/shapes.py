"""Which shapes of a replica a model allows at all (vLLM 0.33's own checks)."""

from roles.models import Model
from roles.topology.plan import Shape


def shapes(gpus: int) -> list[Shape]:
    """Every way to split one replica over at most `gpus` equal GPUs, the better ones first.

    More replicas come first, as a fault then costs less; then less pipeline parallel, which idles
    with few requests; then fewer GPUs.
    """
    found = [
        Shape(tp, size // tp)
        for size in range(1, gpus + 1)
        for tp in range(1, size + 1)
        if size % tp == 0
    ]
    return sorted(
        found, key=lambda shape: (-(gpus // shape.gpus), shape.pipeline_parallel, shape.gpus)
    )


def objection(model: Model, shape: Shape) -> str | None:
    """Why vLLM would refuse a shape for a model, in words; None where it would not."""
    tp, pp = shape.tensor_parallel, shape.pipeline_parallel
    if model.attention_heads % tp:
        return f"{model.attention_heads} attention heads do not divide by {tp}"
    if model.kv_heads % tp and tp % model.kv_heads:
        return f"{model.kv_heads} KV heads and {tp} GPUs do not divide each other"
    if model.intermediate_size % tp:
        return f"intermediate size {model.intermediate_size} does not divide by {tp}"
    if model.padded_vocab_size % tp:
        return f"the padded vocabulary of {model.padded_vocab_size} does not divide by {tp}"
    if pp > model.layers:
        return f"{model.layers} layers are fewer than {pp} stages"
    return None
