"""Why a plan is as it is, in plain words and numbers."""

from collections.abc import Sequence

from roles.engine.params import EngineParams
from roles.hardware import Gpu
from roles.topology.candidates import Candidate, Load, RejectedShape
from roles.topology.rates import gpu_rates
from roles.topology.spec import ServiceSpec

# What layers over several cards cost.
LAYERS_TAKE_TURNS = "layers take turns: of the cards of one replica one works at a time"
SECONDS_A_MONTH = 365.25 / 12 * 86400
# Nobody reads more. The last are kept: those that fit, and before them the largest that do not.
MAX_REJECTED = 12


def chosen_reason(
    spec: ServiceSpec, gpus: Sequence[Gpu], chosen: Candidate, load: Load | None
) -> str:
    """Why this shape, and how often."""
    memory, params = chosen.memory, spec.params
    room = (
        f"{memory.kv_cache_gib:.1f} GiB of KV cache a GPU, {memory.kv_needed_gib:.1f} needed for "
        f"{_requests(params)}"
    )
    if chosen.expected is not None and load is not None:
        return (
            f"{replica_count(chosen)} is {_objective_phrase(spec)} that fits {gpus[0].name}"
            f"{link_phrase(chosen)} at {_count(load.concurrency)} requests at once of "
            f"{load.input_tokens} + {load.output_tokens} tokens: an estimated {figures(chosen)}; "
            f"{room}{_missed_limits(spec, chosen)}{_room_shortfall(chosen, load)}"
        )
    if spec.single_endpoint:
        place = f"{chosen.shape} on {gpus[0].name}{link_phrase(chosen)}"
        return f"one endpoint was asked for: {place}; {room}"
    if chosen.shape.gpus == 1:
        split = f"the model fits one {gpus[0].name}"
    else:
        split = (
            f"{chosen.shape}{link_phrase(chosen)} is the smallest shape that fits {gpus[0].name}"
        )
    stated = "" if load else "; no concurrency is stated, so more replicas win"
    return f"{split}: {room}; so {replica_count(chosen)}{stated}"


def spare_gpus_reason(candidate: Candidate) -> str:
    """Why smaller replicas stand beside the chosen ones."""
    return f"GPUs that are left over serve too: {replica_count(candidate)}"


def fewer_seqs(candidate: Candidate) -> tuple[str, ...]:
    """That a step holds fewer requests than the engine would take by itself."""
    if candidate.max_num_seqs is None:
        return ()
    return (f"a step holds at most {candidate.max_num_seqs} requests (max-num-seqs)",)


def rejected(
    spec: ServiceSpec,
    gpu: Gpu,
    chosen: Candidate,
    options: Sequence[Candidate],
    refused_shapes: Sequence[RejectedShape],
    load: Load | None,
) -> tuple[str, ...]:
    """What speaks against each other shape: those that fit by their figures, the rest by reason."""
    reasons = [rejected_reason(gpu, spec.params, one) for one in refused_shapes]
    seen = {chosen.shape}
    for option in options:
        if option.shape in seen:
            continue
        seen.add(option.shape)
        if option.expected is None or chosen.expected is None:
            reasons.append(f"{replica_count(option)}: would fit too")
        else:
            shortfall = _room_shortfall(option, load)
            each = "; ".join(cost([option], spec.price_per_month))
            reasons.append(
                f"{replica_count(option)}: an estimated {figures(option)}{link_phrase(option)}"
                f"{shortfall}{'; ' + each if each else ''}"
            )
    return tuple(reasons[-MAX_REJECTED:])


def _room_shortfall(candidate: Candidate, load: Load | None) -> str:
    """That not all requests have room at once, where that is so."""
    if load is None:
        return ""
    request = load.input_tokens + load.output_tokens
    room = int(candidate.replicas * candidate.memory.promised_kv_tokens / request)
    return f"; is sure to hold {room} requests at once" if room < load.concurrency else ""


def rejected_reason(gpu: Gpu, params: EngineParams, one: RejectedShape) -> str:
    """Why a shape cannot serve."""
    memory = one.memory
    if memory is None:
        return f"{one.shape} is not possible: {one.reason}"
    room = memory.total_gib - memory.driver_gib - memory.headroom_gib
    if memory.weights_gib > room:
        return (
            f"{one.shape} does not fit {gpu.name}: {memory.weights_gib:.1f} GiB of weights, "
            f"{room:.1f} GiB usable"
        )
    if not memory.starts:
        return f"{one.shape} does not fit {gpu.name}: {memory.reason}"
    return (
        f"{one.shape} does not fit {gpu.name}: {max(memory.kv_cache_gib, 0):.1f} GiB are left for "
        f"KV cache, {memory.kv_needed_gib:.1f} needed for {_requests(params)}"
    )


def no_fit(spec: ServiceSpec, gpus: Sequence[Gpu], remedies: Sequence[str]) -> str:
    """That a model does not run on some cards, and what would make it run."""
    name = f"{len(gpus)}x {gpus[0].name}"
    would = f"it would with {'; or '.join(remedies)}" if remedies else "use another model"
    return f"{spec.model.id} does not fit {name} as asked; {would}"


def no_working_group(spec: ServiceSpec, gpus: Sequence[Gpu], broken: Sequence[str]) -> str:
    """That a model would fit, were it not for GPUs that do not work together."""
    name = f"{len(gpus)}x {gpus[0].name}"
    return (
        f"{spec.model.id} does not run on {name}: it needs GPUs that work together, and "
        f"{'; '.join(broken)}; mend them and delete the host's interconnect from its recorded "
        "hardware to have it measured again, or use a smaller model"
    )


def broken_groups(broken: Sequence[str]) -> tuple[str, ...]:
    """Which GPUs no replica was planned on together."""
    return tuple(f"no replica over GPUs that do not work together: {text}" for text in broken)


def unknown_rates(spec: ServiceSpec, gpu: Gpu) -> tuple[str, ...]:
    """The warning that a shape was chosen by its size alone, though a load is stated."""
    if spec.load is None or gpu_rates(gpu) is not None:
        return ()
    return (f"the rates of {gpu.name} are not known: the smallest shape that fits was chosen",)


def cost(chosen: Sequence[Candidate], price: float | None) -> tuple[str, ...]:
    """What 1000 requests cost where all of a month's are served, from a monthly price."""
    rates = [one.requests_per_s for one in chosen]
    if price is None or not rates or any(rate is None for rate in rates):
        return ()
    per_s = sum(rate for rate in rates if rate is not None)
    each = cost_per_1000(price, per_s)
    return (f"cost: {each:.4g} per 1000 requests ({price:g} a month, {per_s:.3g} requests/s)",)


def cost_per_1000(price_per_month: float, requests_per_s: float) -> float:
    """Price of 1000 requests of a host that is always busy."""
    return price_per_month / (requests_per_s * SECONDS_A_MONTH) * 1000


def figures(candidate: Candidate) -> str:
    """Tokens/s of all replicas, and the times of a request."""
    one = candidate.estimate
    return (
        f"{candidate.replicas * one.tokens_per_s:.0f} tokens/s, "
        f"{candidate.replicas * one.requests_per_s:.3g} requests/s, first token after "
        f"{one.ttft_ms:.0f} ms, {one.tpot_ms:.1f} ms a token (bound by {one.bound_by})"
    )


def replica_count(candidate: Candidate) -> str:
    """How many replicas of which shape."""
    count = candidate.replicas
    return f"{count} replica{'s' if count > 1 else ''} of {candidate.shape}"


def link_phrase(candidate: Candidate) -> str:
    """By what the GPUs of a replica reach each other."""
    label = candidate.link
    if not label or candidate.shape.gpus == 1:
        return ""
    if label.startswith("NV"):
        return " over NVLink"
    return " over XGMI" if label == "XGMI" else " over PCIe"


def _objective_phrase(spec: ServiceSpec) -> str:
    objective = spec.objective
    limits = (("TTFT", objective.ttft_limit_ms), ("ITL", objective.itl_limit_ms))
    within = " and ".join(f"{name} {limit:g} ms" for name, limit in limits if limit)
    kind = "the fastest" if objective.kind == "latency" else "the shape of most throughput"
    return f"{kind} within {within}" if within else kind


def _missed_limits(spec: ServiceSpec, chosen: Candidate) -> str:
    """That no shape keeps the limits, where that is so."""
    if spec.objective.excess(chosen.estimate) <= 1:
        return ""
    return "; no shape is estimated to keep these limits, and this one misses them least"


def _count(requests: float) -> str:
    return f"{requests:.0f}" if requests >= 100 else f"{requests:.3g}"


def _requests(params: EngineParams) -> str:
    return f"{params.min_concurrency} requests of {params.max_model_len} tokens"
