"""The reasons of a plan as text."""

from collections.abc import Mapping, Sequence

from roles.engine.params import Changes, EngineParams, missing
from roles.hardware import Gpu
from roles.plan import Bound, Load, MemorySum, Shape
from roles.topology.candidates import Candidate, RejectedShape
from roles.topology.choice import PIPELINE_LEAD, TIE
from roles.topology.rates import gpu_rates
from roles.topology.spec import ServiceSpec

# The cost of splitting layers over several cards.
LAYERS_TAKE_TURNS = "layers take turns: of the GPUs of one replica one works at a time"
SECONDS_A_MONTH = 365.25 / 12 * 86400
# The largest shapes that do not fit are named.
MAX_REJECTED = 6
MAX_OTHERS = 6
# What a step's time goes to.
SPENT_ON: dict[Bound, str] = {
    "weights": "reading weights",
    "kv": "reading KV cache",
    "compute": "computing, prompts included",
    "links": "moving activations between GPUs",
}


def chosen_reason(
    spec: ServiceSpec,
    gpus: Sequence[Gpu],
    chosen: Candidate,
    load: Load | None,
    options: Sequence[Candidate] = (),
) -> str:
    """Why this shape was chosen of the options, and how many replicas."""
    memory, params = chosen.memory, spec.params
    room = (
        f"{memory.kv_cache_gib:.1f} GiB of KV cache a GPU, {memory.kv_needed_gib:.1f} needed for "
        f"{_requests(params)}"
    )
    if chosen.expected is not None and load is not None:
        return (
            f"{replica_count(chosen)} is {_kind_of_choice(spec, chosen, options)} that fits "
            f"{gpus[0].name}{link_phrase(chosen)} at {requests(load.concurrency)} at once of "
            f"{load.input_tokens} + {load.output_tokens} tokens: an estimated {figures(chosen)}; "
            f"{room}{_missed_limits(spec, chosen)}{_room_shortfall(chosen, load)}"
        )
    if spec.single_endpoint:
        place = f"{chosen.shape} on {gpus[0].name}{link_phrase(chosen)}"
        return f"one endpoint was requested: {place}; {room}"
    if chosen.shape.gpus == 1:
        split = f"the model fits one {gpus[0].name}"
    else:
        split = (
            f"{chosen.shape}{link_phrase(chosen)} is the smallest shape that fits {gpus[0].name}"
        )
    is_free = spec.load is None and chosen.replicas > 1
    stated = "; no concurrency is stated, so most replicas win" if is_free else ""
    return f"{split}: {room}; so {replica_count(chosen)}{stated}"


def _kind_of_choice(spec: ServiceSpec, chosen: Candidate, options: Sequence[Candidate]) -> str:
    """What the chosen shape is among the options."""
    if all(one.shape == chosen.shape for one in options):
        return "the only shape"
    # Where smaller replicas relieve the chosen ones, the options were ranked without these.
    own = chosen.shape, chosen.groups
    ranked = next((one for one in options if (one.shape, one.groups) == own), chosen)
    return _objective_phrase(spec, ranked, options)


def half_precision(gpu: Gpu) -> str:
    """That a card computes in float16 what the model has in bfloat16."""
    return f"{gpu.name} has no bfloat16, so the model runs in float16 (half precision)"


def spare_gpus_reason(candidate: Candidate) -> str:
    """Why there are smaller replicas beside the chosen ones."""
    return f"GPUs that are left over serve too: {replica_count(candidate)}"


def changes(changed: Changes, names: Mapping[str, str]) -> tuple[str, ...]:
    """The note of what is set so that the model fits, beside what is usual; empty if the defaults
    do.

    `names` are the engine's names of the changes, where they differ.
    """
    notes = []

    def named(field: str) -> str:
        return names.get(field, field.replace("_", "-"))

    if changed.max_num_seqs:
        usual = "" if "max_num_seqs" in names else ", usually 256"
        notes.append(f"{named('max_num_seqs')} {changed.max_num_seqs} (requests a step{usual})")
    if changed.max_num_batched_tokens:
        tokens = changed.max_num_batched_tokens
        notes.append(f"{named('max_num_batched_tokens')} {tokens} (tokens a step)")
    if changed.gpu_memory_utilization:
        share = named("gpu_memory_utilization")
        notes.append(f"{share} {changed.gpu_memory_utilization:g} (usually 0.9)")
    if changed.enforce_eager:
        notes.append(f"{named('enforce_eager')} (no CUDA graphs, so decoding is slower)")
    return (f"set so that the model fits: {', '.join(notes)}",) if notes else ()


def rejected(
    spec: ServiceSpec,
    gpu: Gpu,
    chosen: Candidate,
    options: Sequence[Candidate],
    refused_shapes: Sequence[RejectedShape],
    load: Load | None,
) -> tuple[str, ...]:
    """Why each other shape was rejected: fitting ones by their estimates, others by their
    reason."""
    reasons = rejected_reasons(gpu, spec.params, refused_shapes)
    for option in _others(spec, chosen, options):
        if option.expected is None or chosen.expected is None:
            reasons.append(f"{replica_count(option)}: would fit too")
        else:
            shortfall = _room_shortfall(option, load)
            each = "; ".join(cost([option], spec.price_per_month))
            over = f";{link_phrase(option)}" if link_phrase(option) else ""
            reasons.append(
                f"{replica_count(option)}: an estimated {figures(option)}{over}"
                f"{shortfall}{'; ' + each if each else ''}{_pipeline_lead(spec, option, chosen)}"
            )
    return tuple(reasons)


def _others(
    spec: ServiceSpec, chosen: Candidate, options: Sequence[Candidate]
) -> Sequence[Candidate]:
    """One option of each other shape, the best by estimate if there are many."""
    others = {one.shape: one for one in reversed(options) if one.shape != chosen.shape}
    found = list(reversed(others.values()))
    if len(found) <= MAX_OTHERS or any(one.expected is None for one in found):
        return found
    ranked = sorted(found, key=spec.objective.merit, reverse=True)[:MAX_OTHERS]
    return [one for one in found if one in ranked]


def _pipeline_lead(spec: ServiceSpec, option: Candidate, chosen: Candidate) -> str:
    """The note that a pipeline's better estimate is not enough; "" where it is not better."""
    if not _is_better_pipeline(spec, option, chosen):
        return ""
    return f"; a pipeline is taken only where it leads by {PIPELINE_LEAD - 1:.0%}"


def _is_better_pipeline(spec: ServiceSpec, option: Candidate, chosen: Candidate) -> bool:
    if chosen.shape.pipeline_parallel > 1 or option.shape.pipeline_parallel == 1:
        return False
    return spec.objective.merit(option) > spec.objective.merit(chosen)


def _room_shortfall(candidate: Candidate, load: Load | None) -> str:
    """The note that not all concurrent requests have room; "" if they have."""
    if load is None:
        return ""
    request = load.input_tokens + load.output_tokens
    room = int(candidate.replicas * candidate.memory.promised_kv_tokens / request)
    return f"; surely room for {room} of them, others may wait" if room < load.concurrency else ""


def rejected_reasons(
    gpu: Gpu, params: EngineParams, refused_shapes: Sequence[RejectedShape]
) -> list[str]:
    """Why shapes were rejected: the impossible ones together, then a line for each that does not
    fit, without the smallest if there are many."""
    impossible = [one for one in refused_shapes if one.memory is None]
    too_large = [
        _too_large(gpu, params, one.shape, one.memory) for one in refused_shapes if one.memory
    ]
    return [*_impossible(impossible), *too_large[-MAX_REJECTED:]]


def _impossible(refused_shapes: Sequence[RejectedShape]) -> list[str]:
    """A line for each impossible shape; shapes for which the same does not divide are together."""
    shapes: dict[str, list[Shape]] = {}
    for one in refused_shapes:
        first = one.reason if one.links_broken else one.reason.partition("; ")[0]
        by = f" by {one.shape.tensor_parallel}"
        key = f"{first.removesuffix(by)} by" if first.endswith(by) else f"{one.shape}: {first}"
        shapes.setdefault(key, []).append(one.shape)
    lines = []
    for key, same in shapes.items():
        if not key.endswith(" by"):
            lines.append(key.replace(": ", " is not possible: ", 1))
            continue
        names, are = ", ".join(map(str, same)), "is" if len(same) == 1 else "are"
        sizes = dict.fromkeys(str(shape.tensor_parallel) for shape in same)
        lines.append(f"{names} {are} not possible: {key} {', '.join(sizes)}")
    return lines


def _too_large(gpu: Gpu, params: EngineParams, shape: Shape, memory: MemorySum) -> str:
    """Why a shape does not fit."""
    room = memory.total_gib - memory.driver_gib - memory.headroom_gib
    what = f"{shape} does not fit {gpu.name}"
    if shape.gpus == 1:
        what = f"the model does not fit one {gpu.name}"
    if memory.weights_gib > room:
        return (
            f"{what}: {memory.weights_gib:.1f} GiB of weights, "
            f"{room:.1f} GiB usable: {missing(memory.weights_gib, room)}"
        )
    if not memory.starts:
        return f"{what}: {memory.reason}"
    short = missing(memory.kv_needed_gib, memory.kv_cache_gib)
    return (
        f"{what}: {short} for the KV cache of {_requests(params)}, {memory.kv_needed_gib:.1f} GiB"
    )


def no_fit(spec: ServiceSpec, gpus: Sequence[Gpu], is_hopeless: bool) -> str:
    """The message that a model does not fit some cards; `is_hopeless`: no remedy was found."""
    name = f"{len(gpus)}x {gpus[0].name}"
    would = "; use another model" if is_hopeless else ""
    return f"{spec.model.id} does not fit {name} as asked{would}"


def no_working_group(spec: ServiceSpec, gpus: Sequence[Gpu], broken: Sequence[str]) -> str:
    """The message that a model would fit, but its GPUs do not work together."""
    name = f"{len(gpus)}x {gpus[0].name}"
    return (
        f"{spec.model.id} does not run on {name}: it needs GPUs that work together, and "
        f"{'; '.join(broken)}; repair them and delete the host's interconnect from its recorded "
        "hardware to have it measured again, or use a smaller model"
    )


def broken_groups(broken: Sequence[str]) -> tuple[str, ...]:
    """The notes about GPUs that are in no replica together."""
    return tuple(f"no replica over GPUs that do not work together: {text}" for text in broken)


def unknown_rates(spec: ServiceSpec, gpu: Gpu) -> tuple[str, ...]:
    """The warning that a shape was chosen by size alone although a load is stated."""
    if spec.load is None or gpu_rates(gpu) is not None:
        return ()
    return (f"the rates of {gpu.name} are not known: the smallest shape that fits was chosen",)


def cost(chosen: Sequence[Candidate], price: float | None) -> tuple[str, ...]:
    """The cost of 1000 requests at full load, from a monthly price; empty without one."""
    rates = [one.requests_per_s for one in chosen]
    if price is None or not rates or any(rate is None for rate in rates):
        return ()
    per_s = sum(rate for rate in rates if rate is not None)
    each = cost_per_1000(price, per_s)
    return (f"cost: {each:.4g} per 1000 requests ({price:g} a month, {per_s:.3g} requests/s)",)


def cost_per_1000(price_per_month: float, requests_per_s: float) -> float:
    """The price of 1000 requests on a host that is always busy."""
    return price_per_month / (requests_per_s * SECONDS_A_MONTH) * 1000


def figures(candidate: Candidate) -> str:
    """The figures of an estimate: rates of all replicas, and times of a request."""
    one = candidate.estimate
    return (
        f"{candidate.replicas * one.tokens_per_s:,.0f} tokens/s ({throughput_range(candidate)}), "
        f"{candidate.replicas * one.requests_per_s:.3g} requests/s, first token after "
        f"{one.ttft_ms:,.0f} ms, {one.tpot_ms:.1f} ms a token, mostly {SPENT_ON[one.bound_by]}"
    )


def throughput_range(candidate: Candidate) -> str:
    """The range of the throughput of all replicas."""
    count, one = candidate.replicas, candidate.estimate
    return f"{count * one.tokens_per_s_low:,.0f}-{count * one.tokens_per_s_high:,.0f}"


def undecided(
    spec: ServiceSpec, chosen: Candidate, options: Sequence[Candidate], load: Load | None
) -> tuple[str, ...]:
    """The note that the next best shape may be the better one, and what would decide; empty where
    the ranges do not overlap."""
    excess = spec.objective.excess
    others = [one for one in options if one.shape != chosen.shape and one.expected is not None]
    if load is None or chosen.expected is None:
        return ()
    merit = spec.objective.merit
    within = [
        one
        for one in others
        if excess(one.estimate) <= excess(chosen.estimate)
        # Pipelines have so wide a range that each would be named.
        and (one.shape.pipeline_parallel == 1 or merit(one) > merit(chosen))
    ]
    rival = max(within, key=merit, default=None)
    if rival is None:
        return ()
    low, high = chosen.estimate, rival.estimate
    worst = merit(chosen) * low.tokens_per_s_low / low.tokens_per_s
    best = merit(rival) * high.tokens_per_s_high / high.tokens_per_s
    if best < worst:
        return ()
    return (
        f"{replica_count(rival)} may be better, for the ranges overlap ({throughput_range(rival)} "
        f"tokens/s); to decide, measure both at {requests(load.concurrency)} at once of "
        f"{load.input_tokens} + {load.output_tokens} tokens",
    )


def replica_count(candidate: Candidate) -> str:
    """The number of replicas and their shape."""
    count = candidate.replicas
    return f"{count} replica{'s' if count > 1 else ''} of {candidate.shape}"


def link_phrase(candidate: Candidate) -> str:
    """The kind of link between the GPUs of a replica; "" for one GPU."""
    label = candidate.link
    if not label or candidate.shape.gpus == 1:
        return ""
    if label.startswith("NV"):
        rates = gpu_rates(candidate.groups[0][0])
        return " over PCIe" if rates and rates.nvlink_gb_s is None else " over NVLink"
    return " over XGMI" if label == "XGMI" else " over PCIe"


def _objective_phrase(spec: ServiceSpec, chosen: Candidate, options: Sequence[Candidate]) -> str:
    """What the chosen shape is the best in, as far as it is: ties go to most replicas, and
    pipelines have to lead by more."""
    objective = spec.objective
    limits = (("TTFT", objective.ttft_limit_ms), ("ITL", objective.itl_limit_ms))
    within = " and ".join(f"{name} {limit:g} ms" for name, limit in limits if limit)
    is_fast = objective.kind == "latency"
    kind = "the fastest" if is_fast else "the shape of most throughput"
    excess, merit = objective.excess(chosen.estimate), objective.merit(chosen)
    better = [
        one
        for one in options
        if objective.excess(one.estimate) <= excess and objective.merit(one) > merit
    ]
    piped = {one.shape.pipeline_parallel > 1 for one in better}
    if (chosen.shape.pipeline_parallel > 1) in piped:
        kind = f"the shape with most replicas within {TIE:.0%} of "
        kind += "the fastest" if is_fast else "most throughput"
    if chosen.shape.pipeline_parallel == 1 and True in piped:
        kind += f" without a pipeline (one must lead by {PIPELINE_LEAD - 1:.0%})"
    return f"{kind} within {within}" if within else kind


def _missed_limits(spec: ServiceSpec, chosen: Candidate) -> str:
    """The note that no shape keeps the limits; "" if this one does."""
    if spec.objective.excess(chosen.estimate) <= 1:
        return ""
    return "; no shape is estimated to keep these limits, and this one misses them least"


def requests(count: float) -> str:
    """A number of requests, which need not be whole."""
    shown = f"{count:,.0f}" if count >= 100 else f"{count:.3g}"
    return f"{shown} request{'' if shown == '1' else 's'}"


def _requests(params: EngineParams) -> str:
    return f"{requests(params.min_concurrency)} of {params.max_model_len} tokens"
