"""The candidate shapes for a model on equal GPUs of one host: valid, fitting, with estimates."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from roles.engine.params import NO_CHANGES, Changes, EngineParams, GpuMemory, gpu_memory
from roles.engine.planning import Planning
from roles.hardware import Gpu, Hardware, Links, LinkVerdict
from roles.models import Model
from roles.plan import Estimate, Load, MemorySum, Shape
from roles.topology.costs import GpuRates, ReplicaLinks, Workload
from roles.topology.grouping import broken_links, groups
from roles.topology.performance import estimate
from roles.topology.rates import group_links, group_rates, model_costs, slowest_group


@dataclass(frozen=True)
class SlowestGroup:
    """The rates of a GPU of the slowest replica, None if unknown, and its links."""

    rates: GpuRates | None
    links: ReplicaLinks


@dataclass(frozen=True)
class Candidate:
    """Equal replicas of one shape on some GPUs of a host, with the estimate of each.

    `expected` is the estimate of one replica under its part of the load; None without a load, or if
    a card's rates are unknown. `changed` is what the planner sets of the engine's parameters so
    that it fits. `slowest` is of its slowest group, once that is known.
    """

    shape: Shape
    groups: tuple[tuple[Gpu, ...], ...]
    memory: MemorySum
    link: str | None
    changed: Changes = NO_CHANGES
    expected: Estimate | None = None
    slowest: SlowestGroup | None = None

    @property
    def replicas(self) -> int:
        """The number of replicas."""
        return len(self.groups)

    @property
    def estimate(self) -> Estimate:
        """The estimate; there must be one."""
        assert self.expected is not None
        return self.expected

    @property
    def requests_per_s(self) -> float | None:
        """Finished requests per second of all replicas; None without an estimate."""
        return self.replicas * self.expected.requests_per_s if self.expected else None


@dataclass(frozen=True)
class RejectedShape:
    """A shape that cannot serve: the reason, or its memory if that does not fit.

    `links_broken`: it would fit, but not enough GPUs work together.
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
    """The shapes that fit on equal GPUs, in the order of `shapes`, and the rejected ones.

    Each candidate has as many replicas as the GPUs allow, and the cheapest changes of the engine's
    parameters with which it fits. `first_only` stops at the first of `_preferred`.
    """
    found, refused_shapes = fitting(engine, model, params, tuple(gpus), hardware, first_only)
    estimated = [with_load(engine, one, model, params, hardware, load) for one in found]
    return estimated, list(refused_shapes)


@lru_cache(maxsize=4096)
def fitting(
    engine: Planning,
    model: Model,
    params: EngineParams,
    gpus: tuple[Gpu, ...],
    hardware: Hardware,
    first_only: bool,
) -> tuple[tuple[Candidate, ...], tuple[RejectedShape, ...]]:
    """The candidates without estimates, which no load changes, and the rejected shapes."""
    found: dict[int, Candidate] = {}
    refused: dict[int, RejectedShape] = {}
    shapes = engine.shapes(len(gpus))
    changes = (NO_CHANGES, *engine.tighter(params))
    hopeless: set[int] = set()
    for order, changed in _preferred(shapes, changes):
        if order in found or order in hopeless:
            continue
        if order in refused and changed == changes[1]:
            # What does not fit with all changes fits with none of them.
            most = _try_shape(engine, model, params, gpus, hardware, shapes[order], changes[-1])
            if isinstance(most, RejectedShape):
                hopeless.add(order)
                continue
        tried = _try_shape(engine, model, params, gpus, hardware, shapes[order], changed)
        if isinstance(tried, RejectedShape):
            refused.setdefault(order, tried)
            continue
        found[order] = tried
        if first_only:
            break
    rejected_shapes = tuple(refused[order] for order in sorted(refused.keys() - found.keys()))
    return tuple(found[order] for order in sorted(found)), rejected_shapes


def _preferred(
    shapes: Sequence[Shape], changes: Sequence[Changes]
) -> Iterator[tuple[int, Changes]]:
    """Each shape's index with each change. Pipelines come after tensor parallel, because they idle
    with few requests, and a lack of CUDA graphs comes last; then the cheapest change is first."""
    ranked = sorted(
        (changed.enforce_eager, shape.pipeline_parallel > 1, level, order)
        for level, changed in enumerate(changes)
        for order, shape in enumerate(shapes)
    )
    return ((order, changes[level]) for _, _, level, order in ranked)


def with_fewer_replicas(candidate: Candidate) -> Iterator[Candidate]:
    """The candidate with each smaller number of replicas, in decreasing order."""
    for count in range(candidate.replicas - 1, 0, -1):
        yield replace(candidate, groups=candidate.groups[:count], expected=None, slowest=None)


def with_load(
    engine: Planning,
    candidate: Candidate,
    model: Model,
    params: EngineParams,
    hardware: Hardware,
    load: Load | None,
) -> Candidate:
    """The candidate with the estimate of a replica under an equal part of the load."""
    if load is None or engine.calibration is None:
        return candidate
    # Estimate the slowest group: a request may go there.
    slowest = candidate.slowest or _slowest(candidate, hardware)
    rates, gpu = slowest.rates, candidate.groups[0][0]
    if rates is None:
        return candidate
    own = candidate.changed.applied(params)
    concurrency = load.concurrency / candidate.replicas
    limit = _batch_limit(engine, candidate, gpu, own, load)
    workload = Workload(
        load.input_tokens,
        load.output_tokens,
        concurrency,
        limit if limit < concurrency else None,
        bool(own.eager),
    )
    expected = estimate(
        model_costs(model),
        rates,
        slowest.links,
        candidate.shape.tensor_parallel,
        candidate.shape.pipeline_parallel,
        workload,
        engine.calibration,
    )
    return replace(candidate, expected=expected, slowest=slowest)


def _slowest(candidate: Candidate, hardware: Hardware) -> SlowestGroup:
    group, _ = slowest_group(candidate.groups, hardware)
    return SlowestGroup(group_rates(group, hardware), group_links(group, hardware))


def _batch_limit(
    engine: Planning, candidate: Candidate, gpu: Gpu, params: EngineParams, load: Load
) -> int:
    """The concurrent requests of a replica: at most its limit, and what its KV cache holds."""
    length = params.max_model_len or load.input_tokens + load.output_tokens
    max_requests = engine.batch(gpu_memory(gpu), params, length)[1]
    # A request holds its prompt and, on average, half of its answer.
    cache_requests = candidate.memory.kv_tokens / (load.input_tokens + load.output_tokens / 2)
    return max(1, min(max_requests, int(cache_requests)))


def _try_shape(
    engine: Planning,
    model: Model,
    params: EngineParams,
    gpus: Sequence[Gpu],
    hardware: Hardware,
    shape: Shape,
    changed: Changes,
) -> Candidate | RejectedShape:
    if shape.gpus > 1 and gpus[0].mig_profile:
        return RejectedShape(shape, "slices of a GPU do not work together")
    shape, objections = engine.check_shape(model, shape)
    if objections:
        return RejectedShape(shape, "; ".join(objections))
    memories = (gpu_memory(gpus[0]),) * shape.gpus
    shape, memory = placed(engine, model, memories, shape, changed.applied(params))
    if not memory.fits:
        return RejectedShape(shape, "", memory)
    found = _groups(tuple(gpus), shape.gpus, hardware)
    if not found:
        return RejectedShape(shape, "; ".join(broken_links(hardware, gpus)), links_broken=True)
    _, link = slowest_group(found, hardware)
    return Candidate(shape, found, memory, link, changed)


def _groups(gpus: tuple[Gpu, ...], size: int, hardware: Hardware) -> tuple[tuple[Gpu, ...], ...]:
    """The groups of GPUs, found once for all hosts and shapes that differ in nothing that decides
    them."""
    places = tuple((gpu.index, gpu.numa_node) for gpu in gpus)
    by_index = {gpu.index: gpu for gpu in gpus}
    found = _grouped(places, size, hardware.links, hardware.interconnect)
    return tuple(tuple(by_index[index] for index in group) for group in found)


@lru_cache(maxsize=1024)
def _grouped(
    places: tuple[tuple[int, int | None], ...],
    size: int,
    links: Links | None,
    interconnect: tuple[LinkVerdict, ...],
) -> tuple[tuple[int, ...], ...]:
    gpus = tuple(Gpu(index, "", 0, numa_node=node) for index, node in places)
    found = groups(gpus, size, Hardware(gpus, links, interconnect=interconnect))
    return tuple(tuple(gpu.index for gpu in group) for group in found)


@lru_cache(maxsize=4096)
def placed(
    engine: Planning, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
) -> tuple[Shape, MemorySum]:
    """The shape with its layer split over the GPUs, and the memory of the limiting GPU."""
    shape = engine.placed(model, gpus, shape, params)
    return shape, engine.memory(model, gpus, shape, params)
