"""Decides how one host serves a model: each set of equal cards separately, in the best shape."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

from roles.engine.engine import engine
from roles.engine.params import gpu_memory
from roles.engine.planning import Refusal
from roles.hardware import Gpu, Hardware
from roles.models import forms
from roles.plan import Load, Shape
from roles.topology import advice, messages
from roles.topology.candidates import (
    Candidate,
    RejectedShape,
    candidates,
    fitting,
    with_fewer_replicas,
    with_load,
)
from roles.topology.choice import TIE, Objective, best, leads
from roles.topology.grouping import broken_links, groups
from roles.topology.inventory_lines import inventory_line, refusal_line, settings_line
from roles.topology.mixed import MixedReplica, alternative_engine, describe_mixed, mixed_replicas
from roles.topology.rates import gpu_rates, group_links, group_rates
from roles.topology.remedies import FitCase, remedies
from roles.topology.spec import ServiceSpec

# Memory bandwidth assumed for a card that is not in the table: an L4's.
UNKNOWN_GB_S = 300.0


@dataclass(frozen=True)
class Serving:
    """How one host serves: replicas of one shape on each kind of card, with the reasons.

    `problems` say why a kind of card serves nothing. `alternative` is a replica of another engine
    if the cards differ and no kind serves alone.
    """

    chosen: tuple[Candidate, ...] = ()
    reasons: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    alternative: MixedReplica | None = None

    @property
    def used(self) -> frozenset[int]:
        """Indexes of the GPUs that serve."""
        return frozenset(gpu.index for one in self.chosen for group in one.groups for gpu in group)


@lru_cache(maxsize=4096)
def serve(spec: ServiceSpec, hardware: Hardware) -> Serving:
    """How a host serves a model: each set of equal cards separately; then, if the engine can, the
    remaining cards together."""
    parts = [_serve_equal(spec, gpus, load, hardware) for gpus, load in _part_loads(spec, hardware)]
    if engine(spec.engine).mixed_cards and len(parts) > 1:
        parts = _add_mixed_replicas(spec, parts, hardware)
    if spec.single_endpoint:
        parts = _best_part(parts)
    alternative = None
    if len(parts) > 1 and not any(part.chosen for part in parts):
        alternative = alternative_engine(spec, hardware.gpus, hardware)
    whole = merged(parts)
    warnings = tuple(dict.fromkeys((*engine(spec.engine).doubts(spec.model), *whole.warnings)))
    return replace(
        whole,
        warnings=warnings,
        remedies=whole.remedies + (_describe_alternative(alternative) if alternative else ()),
        alternative=alternative,
    )


def merged(parts: Sequence[Serving]) -> Serving:
    """The parts of a host as one."""
    return Serving(
        tuple(one for part in parts for one in part.chosen),
        tuple(text for part in parts for text in part.reasons),
        tuple(text for part in parts for text in part.rejected),
        tuple(text for part in parts for text in part.warnings),
        tuple(dict.fromkeys(text for part in parts for text in part.remedies)),
        tuple(text for part in parts for text in part.problems),
    )


def _describe_alternative(alternative: MixedReplica) -> tuple[str, ...]:
    comment = f"with {alternative.files}: {describe_mixed(alternative)}"
    return (settings_line({"engine": alternative.kind}, comment),)


def _add_mixed_replicas(
    spec: ServiceSpec, parts: list[Serving], hardware: Hardware
) -> list[Serving]:
    """The parts, plus replicas over unused cards of several kinds."""
    if spec.single_endpoint and any(part.chosen for part in parts):
        return parts
    used = merged(parts).used
    able = [gpu for gpu in hardware.gpus if gpu.index not in used and not refused_card(spec, gpu)]
    found, problem = mixed_replicas(spec, able, hardware)
    if not found:
        return [*parts, Serving(problems=(problem,))] if problem else parts
    chosen = tuple(one.candidate for one in found[: 1 if spec.single_endpoint else None])
    mixed = Serving(
        chosen,
        tuple(map(describe_mixed, found)),
        warnings=(messages.LAYERS_TAKE_TURNS,),
    )
    # That a kind of card does not serve alone is no problem any more.
    alone = [part if part.chosen else replace(part, remedies=(), problems=()) for part in parts]
    return [*alone, mixed]


def refused_card(spec: ServiceSpec, gpu: Gpu) -> Refusal | None:
    """Why the engine cannot run on a card at all; None if it can."""
    return engine(spec.engine).unsupported(
        spec.model, spec.params, spec.dtype, gpu, spec.least_capability
    )


def matched(gpus: Sequence[Gpu]) -> list[tuple[Gpu, ...]]:
    """The GPUs grouped by name and size: an engine needs equal ones."""

    def kind(gpu: Gpu) -> tuple[str, int]:
        return gpu.name, gpu.memory_mib

    grouped = [tuple(group) for _, group in groupby(sorted(gpus, key=kind), key=kind)]
    ordered = [tuple(sorted(group, key=lambda gpu: gpu.index)) for group in grouped]
    return sorted(ordered, key=lambda group: group[0].index)


def _serve_equal(
    spec: ServiceSpec, gpus: tuple[Gpu, ...], load: Load | None, hardware: Hardware
) -> Serving:
    """How equal cards serve; `load` is their part."""
    if refused := refused_card(spec, gpus[0]):
        remedy = refusal_line(refused.instead, dict(spec.arguments))
        return Serving(problems=(str(refused),), remedies=(remedy,))
    own = engine(spec.engine)
    if not own.calibration or gpu_rates(gpus[0]) is None:
        load = None
    first_only = load is None and not spec.single_endpoint
    found, refused_shapes = candidates(
        own, spec.model, spec.params, gpus, hardware, load, first_only=first_only
    )
    if not found:
        return _no_plan(spec, gpus, refused_shapes, hardware)
    options = _options(spec, found, hardware, load)
    chosen = options[_chosen(spec, options)]
    all_chosen = _with_spare_gpus(spec, gpus, chosen, hardware, load)
    reasons = _reasons(spec, gpus, all_chosen, options, hardware, load)
    warnings = messages.unknown_rates(spec, gpus[0])
    rejected = messages.rejected(spec, gpus[0], all_chosen[0], options, refused_shapes, load)
    return Serving(all_chosen, reasons, rejected, warnings)


def _with_spare_gpus(
    spec: ServiceSpec,
    gpus: tuple[Gpu, ...],
    chosen: Candidate,
    hardware: Hardware,
    load: Load | None,
) -> tuple[Candidate, ...]:
    """The chosen replicas, and smaller ones on the GPUs that they leave, unless that is worse."""
    rest = _fill_spare_gpus(spec, gpus, chosen, hardware, load)
    if not rest or load is None:
        return (chosen, *rest)
    left = sum(len(group) for one in rest for group in one.groups) / len(gpus)
    rest_load = replace(load, concurrency=load.concurrency * (1 - left))
    own = engine(spec.engine)
    relieved = with_load(own, chosen, spec.model, spec.params, hardware, rest_load)
    if _is_worse(spec.objective, [chosen], [relieved, *rest]):
        return (chosen,)
    return (relieved, *rest)


def _reasons(
    spec: ServiceSpec,
    gpus: tuple[Gpu, ...],
    all_chosen: Sequence[Candidate],
    options: Sequence[Candidate],
    hardware: Hardware,
    load: Load | None,
) -> tuple[str, ...]:
    """Why equal cards serve as they do."""
    own = engine(spec.engine)
    chosen, *rest = all_chosen
    is_half = own.planned_dtype(spec.model, spec.dtype, gpus[0]) == "half"
    return (
        messages.chosen_reason(spec, gpus, chosen, load, options),
        *(messages.spare_gpus_reason(one) for one in rest),
        *_advice(spec, gpus[0], chosen, options, hardware, load),
        *messages.undecided(spec, chosen, options, load),
        *messages.broken_groups(broken_links(hardware, gpus)),
        *messages.changes(chosen.changed, own.change_names),
        *((messages.half_precision(gpus[0]),) if is_half else ()),
    )


def _advice(
    spec: ServiceSpec,
    gpu: Gpu,
    chosen: Candidate,
    options: Sequence[Candidate],
    hardware: Hardware,
    load: Load | None,
) -> tuple[str, ...]:
    """Where the choice is not the usual one: why, and from which load on it would be another."""
    if load is None or not spec.advise or chosen.expected is None:
        return ()
    if chosen.shape.pipeline_parallel > 1:
        return advice.pipeline_over_tensor(spec, chosen, options)
    usual = advice.replicas_over_tensor(spec, chosen, options)
    single = next((one for one in options if one.shape.gpus == 1), None)
    if single is None or chosen.shape.gpus == 1 or spec.single_endpoint:
        return usual

    def at(one: Candidate, requests: int) -> Candidate:
        own = replace(load, concurrency=requests)
        return with_load(engine(spec.engine), one, spec.model, spec.params, hardware, own)

    tensor = [one for one in options if one.shape.pipeline_parallel == 1]
    first = advice.replicas_win_from(tensor, chosen, single, at, spec.objective, load.concurrency)
    return (advice.tensor_over_replicas(spec, gpu, chosen, single, load, first), *usual)


def _options(
    spec: ServiceSpec, found: Sequence[Candidate], hardware: Hardware, load: Load | None
) -> list[Candidate]:
    """The candidates: each shape with all replicas; under a stated load also with fewer, if the
    groups' links differ: then a slow group may be left out."""
    own = engine(spec.engine)
    if spec.single_endpoint:
        single = [replace(one, groups=one.groups[:1], expected=None) for one in found]
        return [with_load(own, one, spec.model, spec.params, hardware, load) for one in single]
    if load is None:
        return list(found)
    less = [
        with_load(own, one, spec.model, spec.params, hardware, load)
        for candidate in found
        if not _alike(candidate, hardware)
        for one in with_fewer_replicas(candidate)
    ]
    return [*found, *less]


def _alike(candidate: Candidate, hardware: Hardware) -> bool:
    """Whether all replicas are as fast."""
    first, *others = candidate.groups
    known = group_links(first, hardware), group_rates(first, hardware)
    return all(
        (group_links(group, hardware), group_rates(group, hardware)) == known for group in others
    )


def _chosen(spec: ServiceSpec, options: Sequence[Candidate]) -> int:
    if all(option.expected is not None for option in options):
        return _best_estimate(spec.objective, options)
    if spec.single_endpoint:
        return max(
            range(len(options)),
            key=lambda index: (
                -options[index].shape.pipeline_parallel,
                options[index].shape.tensor_parallel,
            ),
        )
    return 0


def _best_estimate(objective: Objective, options: Sequence[Candidate]) -> int:
    """The best option by estimate; a pipeline only where it leads by far."""
    parts = [
        [index for index, one in enumerate(options) if (one.shape.pipeline_parallel > 1) is piped]
        for piped in (False, True)
    ]
    firsts = [part[best([options[i] for i in part], objective)] for part in parts if part]
    if len(firsts) == 2 and leads(options[firsts[1]], options[firsts[0]], objective):
        return firsts[1]
    return firsts[0]


def _fill_spare_gpus(
    spec: ServiceSpec,
    gpus: Sequence[Gpu],
    chosen: Candidate,
    hardware: Hardware,
    load: Load | None,
) -> list[Candidate]:
    """Smaller replicas on the GPUs that the chosen shape leaves unused."""
    if spec.single_endpoint:
        return []
    used = {gpu.index for group in chosen.groups for gpu in group}
    left = tuple(gpu for gpu in gpus if gpu.index not in used)
    if not left or groups(left, chosen.shape.gpus, hardware):
        return []
    own = engine(spec.engine)
    more, _ = candidates(own, spec.model, spec.params, left, hardware, None, first_only=True)
    if load is None or not more:
        return more
    served = sum(len(group) for one in more for group in one.groups)
    part = replace(load, concurrency=load.concurrency * served / len(gpus))
    return [with_load(own, one, spec.model, spec.params, hardware, part) for one in more]


def _is_worse(objective: Objective, alone: list[Candidate], together: list[Candidate]) -> bool:
    """Whether more replicas are worse, as when slower ones get few requests."""
    if any(one.expected is None for one in together):
        return False
    if objective.kind == "latency":
        slowest = max(one.estimate.request_ms for one in together)
        return slowest > (1 + TIE) * max(one.estimate.request_ms for one in alone)
    before = sum(objective.merit(one) for one in alone)
    return sum(objective.merit(one) for one in together) < (1 - TIE) * before


def _no_plan(
    spec: ServiceSpec,
    gpus: tuple[Gpu, ...],
    refused_shapes: Sequence[RejectedShape],
    hardware: Hardware,
) -> Serving:
    rejected = tuple(messages.rejected_reasons(gpus[0], spec.params, refused_shapes))
    if any(one.links_broken for one in refused_shapes):
        summary = messages.no_working_group(spec, gpus, broken_links(hardware, gpus))
        return Serving(
            rejected=rejected, problems=(summary,), remedies=("GPUs that work together",)
        )
    fitting_shapes = [one.shape for one in refused_shapes if one.memory is not None] or [Shape(1)]
    widest = max(fitting_shapes, key=lambda shape: (shape.gpus, shape.tensor_parallel))
    case = FitCase(
        spec.model, gpu_memory(gpus[0]), widest, spec.params, spec.engine, is_planned=True
    )
    found = remedies(case, forms(spec.model.id), hardware) if spec.advise else ()
    fixes = tuple(inventory_line(one, dict(spec.arguments), spec.load) for one in found)
    summary = messages.no_fit(spec, gpus, is_hopeless=spec.advise and not fixes)
    return Serving(rejected=rejected, problems=(summary,), remedies=fixes)


def _best_part(parts: list[Serving]) -> list[Serving]:
    """The part for a single endpoint: the kind of card whose replica is largest."""
    able = [part for part in parts if part.chosen] or parts[:1]
    return [max(able, key=most_tokens)]


def most_tokens(part: Serving) -> int:
    """The tokens of KV cache of the largest replica; 0 without any."""
    return max((one.memory.kv_tokens for one in part.chosen), default=0)


def _part_loads(spec: ServiceSpec, hardware: Hardware) -> list[tuple[tuple[Gpu, ...], Load | None]]:
    """Each set of equal cards with its load: those that can serve share it in proportion to their
    memory bandwidth. One endpoint has all of it, wherever it is."""
    kinds, load = matched(hardware.gpus), spec.load
    if load is None or spec.single_endpoint or len(kinds) == 1:
        return [(gpus, load) for gpus in kinds]
    speeds = [speed(gpus) if _is_able(spec, gpus, hardware) else 0.0 for gpus in kinds]
    total = sum(speeds) or 1.0
    return [
        (gpus, replace(load, concurrency=load.concurrency * max(speed / total, 1e-6)))
        for gpus, speed in zip(kinds, speeds, strict=True)
    ]


@lru_cache(maxsize=4096)
def able_gpus(spec: ServiceSpec, hardware: Hardware) -> tuple[Gpu, ...]:
    """The cards of a host of those kinds that serve the model without others."""
    kinds = matched(hardware.gpus)
    return tuple(gpu for gpus in kinds if _is_able(spec, gpus, hardware) for gpu in gpus)


def _is_able(spec: ServiceSpec, gpus: tuple[Gpu, ...], hardware: Hardware) -> bool:
    """Whether equal cards serve the model in any shape."""
    if refused_card(spec, gpus[0]):
        return False
    found, _ = fitting(engine(spec.engine), spec.model, spec.params, gpus, hardware, False)
    return bool(found)


def speed(gpus: Sequence[Gpu], shape: Shape | None = None) -> float:
    """The memory bandwidth of some GPUs in GB/s; an unknown GPU counts as a slow one.

    In a shape of whole layers the GPUs work in turn, each on its part.
    """
    rates = [gpu_rates(gpu) for gpu in gpus]
    each = [one.memory_bandwidth_gb_s if one else UNKNOWN_GB_S for one in rates]
    if shape is None or not shape.tensor_split:
        return sum(each)
    parts = zip(shape.tensor_split, each, strict=True)
    return sum(shape.tensor_split) / sum(part / rate for part, rate in parts)
