"""The changes that would make a model fit, the least painful first.

Changes of the service are combined, because one alone often costs too much: fewer requests with
room at once, or shorter ones, after an FP8 KV cache and a quantised form of the model.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain, combinations, islice
from typing import Any

from roles.engine.engine import DEFAULT_KIND, engine
from roles.engine.params import NO_CHANGES, EngineParams, GpuMemory, gpu_memory
from roles.engine.planning import Planning
from roles.hardware import Gpu, Hardware, find_card
from roles.models import Model
from roles.plan import MemorySum, Shape
from roles.topology.clusters import smallest_cluster

# Shorter requests are of no use.
MIN_LENGTH = 256
# Cards that can be bought or rented, by their size in GiB, and usual numbers of GPUs in a host.
CARDS = {
    24: "NVIDIA L4",
    32: "NVIDIA GeForce RTX 5090",
    48: "NVIDIA L40S",
    80: "NVIDIA H100 80GB HBM3",
    141: "NVIDIA H200",
    180: "NVIDIA B200",
}
AMD_CARDS = {192: "AMD Instinct MI300X", 256: "AMD Instinct MI325X"}
COUNTS = (1, 2, 4, 8, 16)
# Hosts of a cluster that a remedy names.
MAX_CLUSTER = 4
MAX_STAGES = 8
MAX_REMEDIES = 3
# How much each change hurts, against the others: an order, no measure. Halving counts once more.
PAIN = {"memory": 1.0, "cache": 1.5, "requests": 2.0, "length": 3.0, "model": 4.0, "GPUs": 30.0}
PAIN_OF_HALVING = 1.5


@dataclass(frozen=True)
class FitCase:
    """What must fit: a model on GPUs of one kind in a shape, with an engine's parameters.

    `is_planned`: the planner tightens what the parameters leave open, where it must.
    """

    model: Model
    gpu: GpuMemory
    shape: Shape
    params: EngineParams
    kind: str = DEFAULT_KIND
    is_planned: bool = False

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
        if self.memory().fits or not self.is_planned:
            return self.memory().fits
        tightest = (NO_CHANGES, *self.engine.tighter(self.params))[-1]
        return replace(self, params=tightest.applied(self.params)).memory().fits


@dataclass(frozen=True)
class Remedy:
    """Changes after which a case fits: the kinds of change, in words, and the case with them.

    `pain` orders remedies. `settings` are those of an inventory's service, `gpus` the numbers of
    cards of a host, of which each is enough; the case has the first. A cluster has neither.
    """

    kinds: tuple[str, ...]
    words: tuple[str, ...]
    case: FitCase
    pain: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    gpus: tuple[tuple[int, GpuMemory], ...] = ()

    def __str__(self) -> str:
        return " and ".join(self.words)


def remedies(
    case: FitCase, variants: Iterable[Model] = (), machine: Hardware | None = None
) -> tuple[Remedy, ...]:
    """At most three ways to make a case fit, the least painful first; empty if there is none.

    `variants` are quantised forms of the model. One of the ways is of GPUs, where that helps; for
    the host of a plan (`machine`) it has at most eight, or is a cluster of such hosts.
    """
    case = replace(case, params=replace(case.params, measured_kv_gib=None))
    of_settings = _least_painful(_of_settings(case, list(variants)))
    if machine is None:
        # A host has eight of most cards; more of them are the last resort.
        last, counts = _more_gpus(case, COUNTS), COUNTS
    else:
        last, counts = _cluster(case, machine), COUNTS[:-1]
    ways = chain(_more_gpus(case, COUNTS[:-1]), _other_gpus(case, counts), last)
    of_gpus = list(islice(ways, 1))
    kept = of_settings[: MAX_REMEDIES - len(of_gpus)]
    return (*kept, *of_gpus)


def _least_painful(found: Iterable[Remedy]) -> list[Remedy]:
    """In order of pain, without those that do more than another one of the same kinds."""
    kept: list[Remedy] = []
    for remedy in sorted(found, key=lambda one: one.pain):
        if not any(set(one.kinds) <= set(remedy.kinds) for one in kept):
            kept.append(remedy)
    return kept


def _of_settings(case: FitCase, variants: Sequence[Model]) -> Iterator[Remedy]:
    """Every combination of at most three changes, the last of which goes as far as it must."""
    steps = [*_memory(case), *_cache(case), *_models(case, variants)]
    for count in range(3):
        for chosen in combinations(steps, count):
            if len({step.kind for step in chosen}) < count:
                continue
            start = Remedy((), (), case, 0.0)
            for step in chosen:
                start = _after(start, step)
            if start.case.fits:
                if chosen:
                    yield start
                continue
            for last in (*_requests(start.case), *_length(start.case)):
                yield _after(start, last)


@dataclass(frozen=True)
class _Step:
    """One change: its kind, in words, what it changes of the engine's parameters and of an
    inventory's service, and how much it hurts."""

    kind: str
    words: str
    params: dict[str, object] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    model: Model | None = None
    pain: float = 0.0

    def applied(self, case: FitCase) -> FitCase:
        return replace(
            case,
            model=self.model or case.model,
            params=replace(case.params, **self.params),
        )


def _after(remedy: Remedy, step: _Step) -> Remedy:
    return Remedy(
        (*remedy.kinds, step.kind),
        (*remedy.words, step.words),
        step.applied(remedy.case),
        remedy.pain + PAIN[step.kind] + step.pain,
        _merged(remedy.settings, step.settings),
    )


def _merged(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a service, with the options of its engine together."""
    both = {**before, **now}
    if "arguments" in both:
        both["arguments"] = {**before.get("arguments", {}), **now.get("arguments", {})}
    return both


def _with(case: FitCase, **params: object) -> FitCase:
    return replace(case, params=replace(case.params, **params))


def _memory(case: FitCase) -> Iterator[_Step]:
    """What leaves more memory: less of it where not all is free at start, fewer requests of a
    step, or what the planner sets by itself."""
    share = case.engine.lower_utilization(case.gpu, case.params)
    if share is not None:
        named: dict[str, Any] = {"gpu_memory_utilization": share}
        yield _Step("memory", f"gpu_memory_utilization {share}", {"utilization": share}, named)
    if requests := _fewest_seqs(case):
        fewer: dict[str, Any] = {"max_num_seqs": requests}
        option = case.engine.change_names.get("max_num_seqs", "max-num-seqs")
        named = {"arguments": {option: requests}}
        yield _Step("memory", f"{option} {requests}", fewer, named)
    planned = () if case.is_planned else case.engine.tighter(case.params)
    for level, changed in enumerate(planned):
        after = changed.applied(case.params)
        yield _Step(
            "memory",
            changed.words(case.engine.change_names),
            _differences(case.params, after),
            pain=level / 4,
        )


def _fewest_seqs(case: FitCase) -> int | None:
    """The most requests of a step, halved as often as needed, with which the case fits."""
    length = _asked_length(case)
    requests = case.engine.batch(case.gpu, case.params, length)[1]
    while (requests := requests // 2) >= max(1, case.params.min_concurrency):
        if _with(case, max_num_seqs=requests).fits:
            return requests
    return None


def _differences(before: EngineParams, after: EngineParams) -> dict[str, object]:
    return {name: value for name, value in vars(after).items() if vars(before)[name] != value}


def _cache(case: FitCase) -> Iterator[_Step]:
    smaller = case.engine.smaller_cache(case.gpu, case.params)
    if smaller is not None:
        dtype, params = smaller
        named = {"kv_cache_dtype": dtype}
        yield _Step("cache", f"kv_cache_dtype {dtype}", _differences(case.params, params), named)


def _models(case: FitCase, variants: Sequence[Model]) -> Iterator[_Step]:
    """The quantised form of the most bytes that runs on the card and whose weights fit."""
    able = [one for one in variants if not case.engine.kernel_problem(one, case.params, case.gpu)]
    for form in sorted(able, key=lambda one: (-(one.weights_bytes or 0), one.id)):
        named = {"model": form.id}
        yield _Step("model", f"the quantised model {form.id}", settings=named, model=form)


def _requests(case: FitCase) -> Iterator[_Step]:
    """Fewer requests that must have room at once, as many as have."""
    asked = case.params.min_concurrency
    low = _most(0, asked - 1, lambda requests: _with(case, min_concurrency=requests).fits)
    if low:
        pain = PAIN_OF_HALVING * math.log2(asked / low)
        changed: dict[str, Any] = {"min_concurrency": low}
        yield _Step("requests", f"min_concurrency {low}", changed, changed, pain=pain)


def _length(case: FitCase) -> Iterator[_Step]:
    """The longest request that fits."""
    asked, longest = _asked_length(case), longest_request(case)
    if longest is not None:
        pain = PAIN_OF_HALVING * math.log2(asked / longest)
        changed: dict[str, Any] = {"max_model_len": longest}
        yield _Step("length", f"max_model_len {longest}", changed, changed, pain=pain)


def longest_request(case: FitCase) -> int | None:
    """The tokens of the longest request that fits, a multiple of 16; None if that is shorter than
    is of use."""
    limit = case.model.context_limit_tokens
    low, high = MIN_LENGTH // 16 - 1, min(_asked_length(case) - 1, limit) // 16
    if high <= low or not _with(case, max_model_len=MIN_LENGTH).fits:
        return None
    low = _most(low, high, lambda blocks: _with(case, max_model_len=blocks * 16).fits)
    return low * 16 if low * 16 >= MIN_LENGTH else None


def _most(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The largest number from `low` to `high` that fits, where smaller ones do; `low` does not
    have to."""
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _asked_length(case: FitCase) -> int:
    return case.params.max_model_len or case.model.context_limit_tokens


def _more_gpus(case: FitCase, counts: Sequence[int]) -> Iterator[Remedy]:
    if " MIG " in case.gpu.name:
        # Slices of a GPU do not work together.
        return
    for count in counts:
        placed = _fitting(case, count) if count > case.shape.gpus else None
        if placed:
            words = f"{count} GPUs like this ({placed.placed})"
            yield Remedy(("GPUs",), (words,), placed, PAIN["GPUs"], gpus=((count, case.gpu),))
            return


def _cluster(case: FitCase, machine: Hardware) -> Iterator[Remedy]:
    """The fewest hosts like this one that hold the model together."""
    if not case.engine.spans_hosts:
        return
    found = smallest_cluster(case.engine, case.model, case.params, machine, MAX_CLUSTER)
    if found is not None:
        count, _, shape, _ = found
        words = f"a cluster of {count} hosts like this ({shape})"
        yield Remedy(("GPUs",), (words,), replace(case, shape=shape), PAIN["GPUs"])


def _fitting(case: FitCase, count: int) -> FitCase | None:
    """The case in a shape over this many GPUs that fits; None if there is none. Pipelines are used
    if the heads do not divide."""
    for shape_option in case.engine.shapes(count):
        if shape_option.gpus != count or shape_option.pipeline_parallel > MAX_STAGES:
            continue
        shape, objections = case.engine.check_shape(case.model, shape_option)
        if not objections and (own := replace(case, shape=shape)).fits:
            return own
    return None


def _other_gpus(case: FitCase, counts: Sequence[int]) -> Iterator[Remedy]:
    """The smallest number of GPUs of each size of the same vendor, without sizes that need as many
    as a smaller one."""
    found: dict[int, tuple[int, FitCase]] = {}
    for size, gpu in _cards(case.gpu.gfx is not None):
        if case.engine.kernel_problem(case.model, case.params, gpu):
            continue
        other = replace(case, gpu=gpu)
        fits = ((count, _fitting(other, count)) for count in counts)
        first = next(((count, fitting) for count, fitting in fits if fitting), None)
        if first and first[0] not in found:
            found[first[0]] = size, first[1]
    if found:
        words = ", ".join(f"{count} of {size} GiB" for count, (size, _) in found.items())
        cases = [fitting for _, fitting in found.values()]
        gpus = tuple((count, one.gpu) for count, one in zip(found, cases, strict=True))
        yield Remedy(("GPUs",), (f"GPUs: {words}",), cases[0], PAIN["GPUs"], gpus=gpus)


@cache
def _cards(amd: bool) -> tuple[tuple[int, GpuMemory], ...]:
    """The cards that can be bought, by their size in GiB."""
    found = ((size, find_card(name)) for size, name in (AMD_CARDS if amd else CARDS).items())
    return tuple(
        (size, gpu_memory(Gpu(0, card.printed_name, card.memory_mib)))
        for size, card in found
        if card is not None and card.memory_mib is not None
    )
