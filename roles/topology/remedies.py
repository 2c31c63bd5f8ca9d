"""The changes that would make a model fit, the smallest first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from roles.engine.engine import DEFAULT_KIND, engine
from roles.engine.params import EngineParams, GpuMemory
from roles.engine.planning import Planning
from roles.hardware import usable_memory_mib
from roles.models import Model
from roles.plan import MemorySum, Shape

# Shorter requests are of no use.
MIN_LENGTH = 256
# GPU sizes in GiB that can be bought or rented, and usual numbers of GPUs in a host.
SIZES_GIB = (24, 32, 48, 80, 141, 180)
COUNTS = (1, 2, 4, 8, 16)
MAX_STAGES = 8


@dataclass(frozen=True)
class FitCase:
    """What must fit: a model on GPUs of one kind in a shape, with an engine's parameters."""

    model: Model
    gpu: GpuMemory
    shape: Shape
    params: EngineParams
    kind: str = DEFAULT_KIND

    @property
    def engine(self) -> Planning:
        """The engine of the case."""
        return engine(self.kind)

    def memory(self) -> MemorySum:
        """The memory sum of the case."""
        gpus = (self.gpu,) * self.shape.gpus
        return self.engine.memory(self.model, gpus, self.placed, self.params)

    @property
    def placed(self) -> Shape:
        """The shape with its layer split on such GPUs."""
        gpus = (self.gpu,) * self.shape.gpus
        return self.engine.placed(self.model, gpus, self.shape, self.params)

    @property
    def fits(self) -> bool:
        """Whether it starts and holds the requested number of requests."""
        return self.memory().fits


def remedies(case: FitCase, variants: Iterable[Model] = ()) -> tuple[str, ...]:
    """Descriptions of changes, each of which alone makes the case fit; empty if none does.

    `variants` are quantised forms of the model.
    """
    case = replace(case, params=replace(case.params, measured_kv_gib=None))
    return (
        *_utilization(case),
        *_length(case),
        *_sequences(case),
        *_concurrency(case),
        *_cache_dtype(case),
        *_variants(case, variants),
        *_more_gpus(case),
        *_other_gpus(case),
    )


def _with(case: FitCase, **params: object) -> FitCase:
    return replace(case, params=replace(case.params, **params))


def _utilization(case: FitCase) -> Iterator[str]:
    """A lower utilization, if not all memory is free at start."""
    share = case.engine.lower_utilization(case.gpu, case.params)
    if share is not None and _with(case, utilization=share).fits:
        yield f"gpu_memory_utilization {share}"


def _length(case: FitCase) -> Iterator[str]:
    requested = case.params.max_model_len or case.model.context_limit_tokens
    low, high = MIN_LENGTH // 16 - 1, min(requested - 1, case.model.context_limit_tokens) // 16
    if high <= low or not _with(case, max_model_len=MIN_LENGTH).fits:
        return
    while low < high:
        middle = (low + high + 1) // 2
        if _with(case, max_model_len=middle * 16).fits:
            low = middle
        else:
            high = middle - 1
    if low * 16 >= MIN_LENGTH:
        yield f"max_model_len {low * 16}"


def _sequences(case: FitCase) -> Iterator[str]:
    length = case.params.max_model_len or case.model.context_limit_tokens
    requests = case.engine.batch(case.gpu, case.params, length)[1]
    while requests > 1:
        requests //= 2
        if _with(case, max_num_seqs=requests).fits:
            yield f"max_num_seqs {requests}"
            return


def _concurrency(case: FitCase) -> Iterator[str]:
    """Fewer requests that must have room at once, as many as have."""
    low, high = 0, case.params.min_concurrency - 1
    while low < high:
        middle = (low + high + 1) // 2
        if _with(case, min_concurrency=middle).fits:
            low = middle
        else:
            high = middle - 1
    if low:
        yield f"min_concurrency {low}"


def _cache_dtype(case: FitCase) -> Iterator[str]:
    smaller = case.engine.smaller_cache(case.gpu, case.params)
    if smaller is not None and replace(case, params=smaller[1]).fits:
        yield smaller[0]


def _variants(case: FitCase, variants: Iterable[Model]) -> Iterator[str]:
    fitting = [
        one
        for one in variants
        if not case.engine.kernel_problem(one, case.params, case.gpu)
        and replace(case, model=one).fits
    ]
    if fitting:
        # Prefer the variant with the most bytes.
        best = max(fitting, key=lambda variant: (variant.weights_bytes or 0, variant.id))
        yield f"the quantised model {best.id}"


def _more_gpus(case: FitCase) -> Iterator[str]:
    for count in COUNTS:
        shape = _fitting(case, count) if count > case.shape.gpus else None
        if shape:
            yield f"{shape.gpus} GPUs like this ({shape})"
            return


def _fitting(case: FitCase, count: int) -> Shape | None:
    """A shape over this many GPUs that fits; None if there is none. Pipelines are used if the
    heads do not divide."""
    for shape_option in case.engine.shapes(count):
        if shape_option.gpus != count or shape_option.pipeline_parallel > MAX_STAGES:
            continue
        shape, objections = case.engine.check_shape(case.model, shape_option)
        if not objections:
            own = replace(case, shape=shape)
            return own.placed if own.fits else None
    return None


def _other_gpus(case: FitCase) -> Iterator[str]:
    """The smallest number of GPUs of each size, without sizes that need as many as a smaller
    one."""
    found: dict[int, int] = {}
    for size in SIZES_GIB:
        usable = usable_memory_mib(size * 1024)
        gpu = replace(case.gpu, name=f"{size} GiB", total_mib=size * 1024, usable_mib=usable)
        other = replace(case, gpu=gpu)
        count = next((count for count in COUNTS if _fitting(other, count)), None)
        if count and count not in found.values():
            found[size] = count
    if found:
        yield "GPUs: " + ", ".join(f"{count} of {size} GiB" for size, count in found.items())
