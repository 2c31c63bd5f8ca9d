"""Bytes of weights on each GPU of a replica.

Sources: how vLLM 0.33 splits tensors (`layers/linear.py`, `vocab_parallel_embedding.py`,
`fused_moe/config.py`), cuts layers into stages (`distributed/utils.py` get_pp_indices), and what
PyTorch's allocator hands out for them (`CUDACachingAllocator`).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal, cast

from roles.models.model import VOCABULARY_PADDING, Format, Model, Weight

Mxfp4Padding = Literal["marlin", "triton", "none"]
_MIB = 2**20
# The allocator rounds to 512 bytes. Large blocks come in segments of 2 MiB, whose rest stays unused
# if it is at most 1 MiB.
_LARGE, _SEGMENT, _UNUSED = 10 * _MIB, 2 * _MIB, _MIB


def pipeline_layers(layers: int, stages: int) -> tuple[int, ...]:
    """How many layers each pipeline stage has: an uneven rest goes to the stages before the last.

    ValueError if there are more stages than layers.
    """
    if not 1 <= stages <= layers:
        raise ValueError(
            f"{layers} layers cannot be cut into {stages} stages: use at most {layers}"
        )
    base, rest = divmod(layers, stages)
    counts = [base] * stages
    for i in range(2, rest + 2):
        counts[-i] += 1
    return tuple(counts)


def stage_layers(model: Model, stages: int, stage: int) -> range:
    """The indices of the layers that a pipeline stage has."""
    counts = pipeline_layers(len(model.layers), stages)
    begin = sum(counts[:stage])
    return range(begin, begin + counts[stage])


def weights_per_gpu(
    model: Model,
    tensor_parallel_size: int,
    pipeline_parallel_size: int = 1,
    stage: int | None = None,
    *,
    expert_parallel: bool = False,
    data_parallel_size: int = 1,
    mxfp4_padding: Mxfp4Padding = "marlin",
) -> int:
    """Bytes of the loaded weights on a GPU of one stage, or of the largest stage.

    With `data_parallel_size` above 1 experts are split over all its GPUs and the rest is copied.
    `mxfp4_padding` is the kernel whose layout MXFP4 experts are stored in.
    """
    stages = range(pipeline_parallel_size) if stage is None else (stage,)
    split = _Split(
        tensor_parallel_size,
        tensor_parallel_size * data_parallel_size,
        expert_parallel,
        mxfp4_padding,
    )
    return max(_stage_bytes(model, split, pipeline_parallel_size, one) for one in stages)


def checkpoint_bytes(model: Model) -> int:
    """Bytes of the checkpoint by the shapes, without padding, copies or rounding."""
    weights = [*model.first, *model.last, *model.everywhere]
    weights += [weight for layer in model.layers for weight in layer.weights]
    return sum(
        math.ceil(weight_bytes(weight))
        for weight in weights
        if not weight.name.endswith("absorbed")
    )


def weight_bytes(weight: Weight) -> float:
    """Bytes of one whole tensor and its scales, without padding or rounding."""
    outputs, inputs = weight.outputs + weight.kv_outputs, weight.inputs
    return _matrix_bytes(weight.format, max(1, weight.experts), outputs, inputs)


def _stage_bytes(model: Model, split: "_Split", stages: int, stage: int) -> int:
    layers = stage_layers(model, stages, stage)
    until, ends = _sums(model, split)
    total = until[layers.stop] - until[layers.start] + ends.everywhere
    if stage == 0:
        total += ends.first
    if stage == stages - 1:
        total += ends.last
        if model.tied_embeddings and stages > 1:
            total += _bytes(split, model.first[0])
    return math.ceil(total * model.scale) + model.rope_bytes


@dataclass(frozen=True)
class _Ends:
    """Bytes of the parameters outside the layers."""

    first: int
    last: int
    everywhere: int


def _sums(model: Model, split: "_Split") -> tuple[tuple[int, ...], _Ends]:
    """Cumulative bytes of the layers, and the bytes of the other parameters.

    Cached in the model: comparing whole models would take longer than the sum.
    """
    if split not in model.memo:
        model.memo[split] = _sum_bytes(model, split)
    return cast(tuple[tuple[int, ...], _Ends], model.memo[split])


def _sum_bytes(model: Model, split: "_Split") -> tuple[tuple[int, ...], _Ends]:

    def count(weights: tuple[Weight, ...]) -> int:
        return sum(_bytes(split, weight) for weight in weights)

    # Most layers are the same object.
    known = {id(layer): count(layer.weights) for layer in {id(x): x for x in model.layers}.values()}
    until = tuple(accumulate((known[id(layer)] for layer in model.layers), initial=0))
    return until, _Ends(count(model.first), count(model.last), count(model.everywhere))


@dataclass(frozen=True)
class _Split:
    """How tensors are split and stored: over `tensor` GPUs, experts over `all_gpus`."""

    tensor: int
    all_gpus: int
    expert_parallel: bool
    mxfp4_padding: Mxfp4Padding


@lru_cache(maxsize=4096)
def _bytes(split: _Split, weight: Weight) -> int:
    """Bytes that the allocator uses for a tensor and its scales on one GPU."""
    matrices = max(1, weight.experts)
    outputs, inputs, parts = weight.outputs, weight.inputs, split.tensor
    if weight.experts:
        if split.expert_parallel:
            matrices, parts = math.ceil(weight.experts / split.all_gpus), 1
        else:
            parts = split.all_gpus
    if weight.split == "vocabulary":
        outputs = _round_up(outputs, VOCABULARY_PADDING) / parts
    elif weight.split == "outputs":
        outputs = outputs / parts
    elif weight.split == "inputs":
        inputs = inputs / parts
    if weight.kv_heads:
        outputs += weight.kv_outputs * max(1, weight.kv_heads / parts) / weight.kv_heads
    outputs, inputs = math.ceil(outputs), math.ceil(inputs)
    if weight.experts and weight.format.name == "mxfp4":
        outputs, inputs = _padded_mxfp4(weight, outputs, inputs, split.mxfp4_padding)
    return _allocated_matrix(weight.format, matrices, outputs, inputs)


def _padded_mxfp4(
    weight: Weight, outputs: int, inputs: int, padding: Mxfp4Padding
) -> tuple[int, int]:
    """The padded sizes of MXFP4 experts.

    Marlin and TRT-LLM (`fused_moe/oracle/mxfp4.py`) take an intermediate size of whole 128s and a
    hidden size of whole 256s. Triton's layout on Hopper (`triton_kernels`, `hopper_value.py`) has
    inputs of whole 128s and outputs of whole 256s.
    """
    if padding == "none":
        return outputs, inputs
    if padding == "triton" and weight.split == "outputs":
        return _round_up(2 * _round_up(math.ceil(outputs / 2), 64), 256), _round_up(inputs, 128)
    if padding == "triton":
        return _round_up(outputs, 256), _round_up(_round_up(inputs, 64), 128)
    if weight.split == "outputs":
        # Gate and up are stacked, each padded.
        return 2 * _round_up(math.ceil(outputs / 2), 128), _round_up(inputs, 256)
    return _round_up(outputs, 256), _round_up(inputs, 128)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _scale_count(format: Format, outputs: int, inputs: int) -> int:
    rows = math.ceil(outputs / format.block_outputs) if format.block_outputs else 1
    columns = math.ceil(inputs / format.block_inputs) if format.block_inputs else 1
    return rows * columns


def _matrix_bytes(format: Format, matrices: int, outputs: int, inputs: int) -> float:
    scales = _scale_count(format, outputs, inputs) * format.scale_bytes
    return matrices * (outputs * inputs * format.bits / 8 + scales)


def _allocated_matrix(format: Format, matrices: int, outputs: int, inputs: int) -> int:
    numbers = math.ceil(matrices * outputs * inputs * format.bits / 8)
    scales = matrices * _scale_count(format, outputs, inputs) * format.scale_bytes
    return allocated(numbers) + allocated(math.ceil(scales))


def allocated(size: int) -> int:
    """Bytes that PyTorch counts as allocated for a tensor of `size` bytes."""
    size = _round_up(size, 512)
    if size < _LARGE:
        return size
    rest = -size % _SEGMENT
    return size + rest if rest <= _UNUSED else size
