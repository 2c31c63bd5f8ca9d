"""The ways to split one replica over equal GPUs."""

from functools import cache, lru_cache

from roles.models import Model, shape_problems
from roles.plan import Shape


@cache
def shapes(gpus: int) -> tuple[Shape, ...]:
    """All shapes of one replica on at most `gpus` equal GPUs, the preferred ones first.

    Shapes with more replicas come first, because a fault then costs less; then those with less
    pipeline parallel, which idles with few requests; then those with fewer GPUs.
    """
    found = [
        Shape(tp, size // tp)
        for size in range(1, gpus + 1)
        for tp in range(1, size + 1)
        if size % tp == 0
    ]
    return tuple(
        sorted(
            found, key=lambda shape: (-(gpus // shape.gpus), shape.pipeline_parallel, shape.gpus)
        )
    )


@lru_cache(maxsize=4096)
def check_shape(model: Model, shape: Shape) -> tuple[Shape, tuple[str, ...]]:
    """The shape, with expert parallel if only that makes it valid, and its problems."""
    objections = _shape_problems(model, shape)
    if objections and model.experts and not _shape_problems(model, shape.with_experts):
        return shape.with_experts, ()
    return shape, objections


def _shape_problems(model: Model, shape: Shape) -> tuple[str, ...]:
    return shape_problems(
        model,
        shape.tensor_parallel,
        shape.pipeline_parallel,
        expert_parallel=shape.expert_parallel,
    )
