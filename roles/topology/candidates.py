"""The ways to serve a model on equal GPUs of one host: which shapes are valid, fit, and do what."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from roles.engine.params import EngineParams, GpuMemory, gpu_memory
from roles.engine.planning import Planning
from roles.hardware import Gpu, Hardware
from roles.models import Model
from roles.plan import Estimate, MemorySum, Shape
from roles.topology.costs import Workload
from roles.topology.grouping import broken_links, groups
from roles.topology.performance import estimate
from roles.topology.rates import group_links, group_rates, model_costs, slowest_group


@dataclass(frozen=True)
class Load:
    """What is expected of one host: requests in flight, all of one size."""

    concurrency: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Candidate:
    """Equal replicas of one shape on some GPUs of a host, with what each is expected to do.

    `expected` is of one replica under its part of the load, None where no load is stated or a
    card's rates are not known. `max_num_seqs` are the
    requests of a step where the planner says fewer than the engine would take.
    """

    shape: Shape
    groups: tuple[tuple[Gpu, ...], ...]
    memory: MemorySum
    link: str | None
    max_num_seqs: int | None = None
    expected: Estimate | None = None

    @property
    def replicas(self) -> int:
        """How many replicas these are."""
        return len(self.groups)

    @property
    def estimate(self) -> Estimate:
        """The estimate, where there is one."""
        assert self.expected is not None
        return self.expected

    @property
    def requests_per_s(self) -> float | None:
        """Finished requests of all replicas together."""
        return self.replicas * self.expected.requests_per_s if self.expected else None


@dataclass(frozen=True)
class RejectedShape:
    """A shape that cannot serve: why, in words, and its memory where it is for memory.

    `apart`: it would fit, but no GPUs that it needs work together.
    """

    shape: Shape
    reason: str
    memory: MemorySum | None = None
    links_broken: bool = False


def candidates(
    engine: Planning,
    model: Model,
    params: EngineParams,
    gpus: Sequence[Gpu],
    hardware: Hardware,
    load: Load | None,
    first_only: bool = False,
) -> tuple[list[Candidate], list[RejectedShape]]:
    """Every shape that fits on equal GPUs, in the order of `shapes`, and those that do not.

    A shape stands for as many replicas as there are GPUs for. Pipelines are tried where no
    tensor-parallel shape fits: they idle with few requests. `first_only` stops at the first that
    fits.
    """
    found: list[Candidate] = []
    refused: list[RejectedShape] = []
    for shape in engine.shapes(len(gpus)):
        if shape.pipeline_parallel > 1 and any(one.shape.pipeline_parallel == 1 for one in found):
            continue
        tried = _try_shape(engine, model, params, gpus, hardware, shape)
        if isinstance(tried, RejectedShape):
            refused.append(tried)
            continue
        found.append(tried)
        if first_only:
            break
    if not first_only:
        found = [one for one in found if one.shape.pipeline_parallel == 1] or found
    return [with_load(engine, one, model, params, hardware, load) for one in found], refused


def with_enough_cache(options: Sequence[Candidate], load: Load) -> list[Candidate]:
    """Those whose KV cache is sure to hold all requests expected at once; else those that should.

    Beyond that requests wait or are begun anew. All of them where none holds as many.
    """
    certain = [one for one in options if one.memory.promised_kv_tokens >= _held(one, load)]
    likely = [one for one in options if one.memory.kv_tokens >= _held(one, load)]
    return certain or likely or list(options)


def _held(candidate: Candidate, load: Load) -> float:
    """Tokens that a replica's part of the load keeps at once."""
    return load.concurrency / candidate.replicas * (load.input_tokens + load.output_tokens)


def with_fewer_replicas(candidate: Candidate) -> Iterator[Candidate]:
    """The same shape with each smaller number of replicas, the most first."""
    for count in range(candidate.replicas - 1, 0, -1):
        yield replace(candidate, groups=candidate.groups[:count], expected=None)


def with_load(
    engine: Planning,
    candidate: Candidate,
    model: Model,
    params: EngineParams,
    hardware: Hardware,
    load: Load | None,
) -> Candidate:
    """The candidate with the estimate of a replica under its equal part of the load."""
    if load is None or engine.calibration is None:
        return candidate
    # The slowest group is what a user may meet.
    group, _ = slowest_group(candidate.groups, hardware)
    rates = group_rates(group, hardware)
    if rates is None:
        return candidate
    workload = Workload(
        load.input_tokens,
        load.output_tokens,
        load.concurrency / candidate.replicas,
        _batch_limit(engine, candidate, group[0], params, load),
    )
    expected = estimate(
        model_costs(model, params.kv_cache_dtype),
        rates,
        group_links(group, hardware),
        candidate.shape.tensor_parallel,
        candidate.shape.pipeline_parallel,
        workload,
        engine.calibration,
    )
    return replace(candidate, expected=expected)


def _batch_limit(
    engine: Planning, candidate: Candidate, gpu: Gpu, params: EngineParams, load: Load
) -> int:
    """Requests that a replica runs at once: as many as it may, and as its KV cache holds."""
    length = params.max_model_len or load.input_tokens + load.output_tokens
    max_requests = engine.batch(gpu_memory(gpu), params, length)[1]
    # A request holds its prompt and, on the mean, half of its answer.
    cache_requests = candidate.memory.kv_tokens / (load.input_tokens + load.output_tokens / 2)
    return max(1, min(max_requests, int(cache_requests)))


def _try_shape(
    engine: Planning,
    model: Model,
    params: EngineParams,
    gpus: Sequence[Gpu],
    hardware: Hardware,
    shape: Shape,
) -> Candidate | RejectedShape:
    if shape.gpus > 1 and gpus[0].mig_profile:
        return RejectedShape(shape, "slices of a GPU do not work together")
    shape, objections = engine.check_shape(model, shape)
    if objections:
        return RejectedShape(shape, "; ".join(objections))
    shape, memory = placed(engine, model, (gpu_memory(gpus[0]),) * shape.gpus, shape, params)
    if not memory.fits:
        return RejectedShape(shape, "", memory)
    found = groups(gpus, shape.gpus, hardware)
    if not found:
        return RejectedShape(shape, "; ".join(broken_links(hardware, gpus)), links_broken=True)
    _, link = slowest_group(found, hardware)
    return Candidate(shape, tuple(found), memory, link)


@lru_cache(maxsize=4096)
def placed(
    engine: Planning, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
) -> tuple[Shape, MemorySum]:
    """A shape as it lies on some GPUs, and the memory of the one that binds."""
    shape = engine.placed(model, gpus, shape, params)
    return shape, engine.memory(model, gpus, shape, params)
