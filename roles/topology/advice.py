"""What a plan says where it does not follow the usual advice, with the figures. Pure."""

from collections.abc import Callable, Sequence
from functools import partial

from roles.hardware import Gpu
from roles.plan import Load
from roles.topology.candidates import Candidate
from roles.topology.choice import Objective, best
from roles.topology.messages import link_phrase, replica_count, requests
from roles.topology.spec import ServiceSpec

# Of one host: more than any engine holds at once.
MOST_REQUESTS = 2**16


def first_load(is_reached: Callable[[int], bool], asked: float) -> int | None:
    """The smallest number of requests above those asked with which something is so; None where it
    is not up to MOST_REQUESTS. Found by bisection: from there on it should stay so."""
    low = int(asked)
    high = low + 1
    while not is_reached(high):
        if high >= MOST_REQUESTS:
            return None
        low, high = high, min(2 * high, MOST_REQUESTS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_reached(middle) else (middle, high)
    return high


def replicas_win_from(
    options: Sequence[Candidate],
    chosen: Candidate,
    single: Candidate,
    at: Callable[[Candidate, int], Candidate],
    objective: Objective,
    asked: float,
) -> int | None:
    """The smallest number of requests with which the replicas of one GPU rank first; None if there
    is none. `at` estimates an option with a number of requests.

    The replicas are compared with one rival at a time: with the chosen option, and where they beat
    it, with what ranks first there.
    """
    rival, before = chosen, asked
    for _ in options:
        first = first_load(partial(_is_beaten, rival, single, at, objective), before)
        if first is None:
            return None
        top = best([at(one, first) for one in options], objective)
        if options[top].shape.gpus == 1:
            return first
        rival, before = options[top], first
    return None


def _is_beaten(
    one: Candidate,
    other: Candidate,
    at: Callable[[Candidate, int], Candidate],
    objective: Objective,
    requests: int,
) -> bool:
    return best([at(one, requests), at(other, requests)], objective) == 1


def tensor_over_replicas(
    spec: ServiceSpec, gpu: Gpu, chosen: Candidate, single: Candidate, load: Load, first: int | None
) -> str:
    """Why a model that fits one card is split, and from which load on replicas win."""
    count = chosen.shape.tensor_parallel
    later = f"; from {requests(first)} at once on this host on replicas win" if first else ""
    return (
        f"the model fits one {gpu.name}, but at {requests(load.concurrency)} at once {count} GPUs "
        f"that read its weights together {_are_better(spec, chosen, single)} "
        f"{replica_count(single)} ({_rate(spec, single)}){later}"
    )


def _are_better(spec: ServiceSpec, chosen: Candidate, other: Candidate) -> str:
    """In what a choice is better than another one: limits go before speed."""
    excess = spec.objective.excess(chosen.estimate)
    if excess >= spec.objective.excess(other.estimate):
        return "are faster than"
    return "miss the limits by less than" if excess > 1 else "keep the limits, unlike"


def replicas_over_tensor(
    spec: ServiceSpec, chosen: Candidate, options: Sequence[Candidate]
) -> tuple[str, ...]:
    """That replicas beat tensor parallel over PCIe, though people often split over all GPUs."""
    wide = [one for one in _tensor(options) if link_phrase(one) == " over PCIe"]
    if not wide or len(chosen.groups) == 1:
        return ()
    widest = max(wide, key=lambda one: one.shape.gpus)
    is_slower = spec.objective.merit(widest) < spec.objective.merit(chosen)
    if widest.shape.gpus <= chosen.shape.gpus or not is_slower:
        return ()
    return (
        f"usual advice is {widest.shape}; its all-reduces over PCIe cost more than it gains here "
        f"({_rate(spec, widest)})",
    )


def pipeline_over_tensor(
    spec: ServiceSpec, chosen: Candidate, options: Sequence[Candidate]
) -> tuple[str, ...]:
    """That a pipeline beats tensor parallel, though usual advice is the other way."""
    tensor = _tensor(options)
    if not tensor:
        return ()
    rival = max(tensor, key=spec.objective.merit)
    if spec.objective.merit(rival) >= spec.objective.merit(chosen):
        return (
            "usual advice is tensor parallel inside a host; pipelines here "
            f"{_are_better(spec, chosen, rival)} {rival.shape} ({_rate(spec, rival)})",
        )
    return (
        f"usual advice is tensor parallel inside a host; here the all-reduces of {rival.shape}"
        f"{link_phrase(rival)} cost more than a pipeline's hand-overs ({_rate(spec, rival)})",
    )


def _tensor(options: Sequence[Candidate]) -> list[Candidate]:
    """The options of tensor parallel alone, with estimates."""
    return [
        one
        for one in options
        if one.shape.gpus > 1 and one.shape.pipeline_parallel == 1 and one.expected is not None
    ]


def _rate(spec: ServiceSpec, candidate: Candidate) -> str:
    if spec.objective.kind == "latency":
        return f"{candidate.estimate.request_ms:,.0f} ms a request"
    return f"{candidate.replicas * candidate.estimate.tokens_per_s:,.0f} tokens/s"
