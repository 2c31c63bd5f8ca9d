"""The shapes of a model that vLLM 0.33 refuses, and why.

Sources: vLLM 0.33 `config/model.py` verify_with_parallel_config, `layers/linear.py`,
`vocab_parallel_embedding.py`, `quantization/utils/fp8_utils.py`, `fused_moe/config.py`, and the
registry's models without SupportsPP.
"""

from collections.abc import Iterator
from functools import lru_cache

from roles.models.model import Attention, Experts, Model, Recurrent, Weight
from roles.models.weights import pipeline_layers

# Model types without support for pipeline parallel.
NO_PIPELINE = frozenset(("gemma3n", "mamba2", "zamba2"))
# Weight-only formats whose kernels (Marlin) need whole groups of inputs on each GPU.
_GROUPED = frozenset(("awq", "gptq", "int4", "gptq-int8"))


# Planning asks for few shapes, and for each of them on every kind of card.
@lru_cache(maxsize=8192)
def shape_problems(
    model: Model,
    tensor_parallel_size: int,
    pipeline_parallel_size: int = 1,
    *,
    expert_parallel: bool = False,
    data_parallel_size: int = 1,
) -> tuple[str, ...]:
    """The reasons why vLLM would not start a model in a shape; empty if it would."""
    tensor, experts_over = tensor_parallel_size, tensor_parallel_size * data_parallel_size
    found = [
        *_heads(model, tensor),
        *_vocabulary(model, tensor),
        *_recurrent(model, tensor),
        *_experts(model, tensor, experts_over, expert_parallel),
        *_quantised(model, tensor, experts_over, expert_parallel),
        *_dense(model, tensor),
        *_pipeline(model, pipeline_parallel_size),
    ]
    return tuple(dict.fromkeys(found))


def _heads(model: Model, tensor: int) -> Iterator[str]:
    kinds = dict.fromkeys((mixer.heads, mixer.kv_heads, mixer.kind) for mixer in model.attentions)
    for heads, kv, kind in kinds:
        if heads % tensor:
            yield f"{heads} attention heads do not divide by {tensor}"
        if kind == "mla":
            continue
        if kv % tensor and tensor % kv:
            yield f"{kv} KV heads and {tensor} GPUs do not divide each other"
        if model.model_type == "gpt_oss" and tensor > kv:
            yield f"{kv} KV heads allow at most {kv} GPUs: gpt-oss does not copy them"
    yield from _encoder(model, tensor)


def _encoder(model: Model, tensor: int) -> Iterator[str]:
    encoder = model.encoder
    if encoder is None:
        return
    parts = (
        (encoder.heads, f"{encoder.heads} heads"),
        (encoder.intermediate_size, f"the intermediate size {encoder.intermediate_size}"),
    )
    for size, part in parts:
        if size % tensor:
            yield (
                f"{part} of the vision encoder do not divide by {tensor}; "
                "--mm-encoder-tp-mode data would not split it"
            )


def _vocabulary(model: Model, tensor: int) -> Iterator[str]:
    if model.padded_vocabulary_size % tensor:
        yield f"the padded vocabulary of {model.padded_vocabulary_size} does not divide by {tensor}"


def _recurrent(model: Model, tensor: int) -> Iterator[str]:
    states = dict.fromkeys(layer.mixer for layer in model.layers if _is_state(layer.mixer))
    for state in states:
        if not isinstance(state, Recurrent):
            continue
        if state.heads % tensor:
            yield f"{state.heads} heads of the linear attention do not divide by {tensor}"
        # Mamba 2 copies groups that do not divide.
        if state.kind != "mamba2" and state.key_heads % tensor:
            yield f"{state.key_heads} key heads of the linear attention do not divide by {tensor}"
        if state.kind != "mamba2" and state.conv_channels % tensor:
            yield f"{state.conv_channels} convolution channels do not divide by {tensor}"


def _is_state(mixer: Attention | Recurrent | None) -> bool:
    return isinstance(mixer, Recurrent)


def _experts(model: Model, tensor: int, all_gpus: int, expert_parallel: bool) -> Iterator[str]:
    experts = model.experts
    if experts is None:
        if expert_parallel:
            yield "expert parallel needs a model with experts, this one is dense"
        return
    if tensor > experts.count:
        yield f"{tensor} GPUs are more than the {experts.count} experts"
    if not expert_parallel and experts.intermediate_size % all_gpus:
        yield (
            f"the experts' intermediate size {experts.intermediate_size} does not divide by "
            f"{all_gpus}; expert parallel would not split it"
        )


def _dense(model: Model, tensor: int) -> Iterator[str]:
    sizes: dict[int, None] = {}
    for layer in model.layers:
        mlp = layer.mlp
        if isinstance(mlp, Experts):
            sizes[mlp.shared_intermediate_size] = None
        elif mlp is not None:
            sizes[mlp.intermediate_size] = None
    for size in sizes:
        if size % tensor:
            yield f"intermediate size {size} does not divide by {tensor}"


def _quantised(model: Model, tensor: int, all_gpus: int, expert_parallel: bool) -> Iterator[str]:
    for weight in _weights(model):
        parts = tensor if not weight.experts else 1 if expert_parallel else all_gpus
        if parts > 1:
            yield from _blocks(weight, parts)


def _weights(model: Model) -> Iterator[Weight]:
    seen = {id(layer): layer for layer in model.layers}
    for layer in seen.values():
        yield from layer.weights


def _blocks(weight: Weight, parts: int) -> Iterator[str]:
    format = weight.format
    name = "the experts" if weight.experts else weight.name
    if format.name == "fp8-block":
        size, block = (
            (weight.inputs, format.block_inputs)
            if weight.split == "inputs"
            else (weight.outputs, format.block_outputs)
        )
        # Gate and up are stacked: each is split.
        if weight.split == "outputs" and (weight.experts or "gate_up" in weight.name):
            size //= 2
        if weight.split in ("inputs", "outputs") and size % (parts * block):
            yield (
                f"FP8 blocks of {block} do not divide the {size} of {name} over {parts} GPUs"
                + ("; expert parallel would not split them" if weight.experts else "")
            )
    elif format.name in _GROUPED and weight.split == "inputs" and format.block_inputs:
        if weight.inputs % (parts * format.block_inputs):
            yield (
                f"quantisation groups of {format.block_inputs} do not divide the "
                f"{weight.inputs} inputs of {name} over {parts} GPUs"
            )
    elif format.name == "nvfp4" and weight.split == "inputs" and weight.inputs % (parts * 16):
        yield f"NVFP4 groups of 16 do not divide {weight.inputs} inputs of {name} over {parts} GPUs"


def _pipeline(model: Model, stages: int) -> Iterator[str]:
    if stages <= 1:
        return
    if model.model_type in NO_PIPELINE:
        yield f"{model.model_type} models cannot be split into pipeline stages"
    try:
        pipeline_layers(len(model.layers), stages)
    except ValueError:
        yield f"{len(model.layers)} layers are fewer than {stages} stages"
