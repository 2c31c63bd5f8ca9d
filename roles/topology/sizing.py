"""Sizing: on which cards, and how many of them, a service runs, how fast, and at what cost."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from roles.hardware import Card, Gpu, Hardware, declared_links
from roles.plan import HostPlan, Plan, Replica
from roles.topology import messages
from roles.topology.head_line import all_at_once
from roles.topology.planner import plan_fleet
from roles.topology.settings import ServiceSettings

GPU_COUNTS = (1, 2, 4, 8)
HOST_COUNTS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Size:
    """A service on some hosts of some equal cards.

    `shape` is "" and `problem` says why where the service does not fit. `requests_at_once` is the
    number of requests of the service's load that run at once, as a plan says it; None for any
    number. Figures are for all hosts together, times those of the slowest replica; None where no
    rates are known.
    `tokens_per_s_low` and `tokens_per_s_high` are the range of the estimate. `price_per_month` and
    `cost_per_1000_requests` (at full load) are None without a price.
    """

    card: str
    gpus_per_host: int
    hosts: int
    shape: str = ""
    replicas: int = 0
    requests_at_once: int | None = 0
    tokens_per_s: float | None = None
    tokens_per_s_low: float | None = None
    tokens_per_s_high: float | None = None
    requests_per_s: float | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    price_per_month: float | None = None
    cost_per_1000_requests: float | None = None
    problem: str = ""

    @property
    def fits(self) -> bool:
        """Whether the service runs there."""
        return bool(self.shape)

    @property
    def gpus(self) -> int:
        """The number of GPUs of all hosts."""
        return self.gpus_per_host * self.hosts


def sizes(
    service: ServiceSettings,
    cards: Iterable[Card],
    prices: Mapping[str, float] | None = None,
    gpu_counts: Sequence[int] = GPU_COUNTS,
    host_counts: Sequence[int] = HOST_COUNTS,
) -> tuple[Size, ...]:
    """The service on each number of each card, the best first; see `ranked`.

    `prices` are those of one GPU a month, by the card's name. Cards whose memory is the host's are
    left out: their size is not known.
    """
    counts = list(product(gpu_counts, host_counts))
    found = [
        _priced(_size(service, card, gpus, hosts), (prices or {}).get(card.name))
        for card in cards
        if card.memory_mib is not None
        for gpus, hosts in counts
    ]
    load = service.load
    return ranked(found, load.concurrency if load else 1)


def ranked(found: Iterable[Size], concurrency: float) -> tuple[Size, ...]:
    """Sizes in order: those that hold the load, those that fit, those that do not; within each the
    cheapest first, without a price those of fewest GPUs, and then the fastest."""

    def order(size: Size) -> tuple:
        at_once = size.requests_at_once
        group = 2 if not size.fits else int(at_once is not None and at_once < concurrency)
        cost = size.cost_per_1000_requests
        cheapest = (cost is None, cost or 0.0)
        return group, *cheapest, size.gpus, -(size.tokens_per_s or 0.0), size.card, size.hosts

    return tuple(sorted(found, key=order))


def hardware_of(card: Card, count: int) -> Hardware:
    """A host of some equal cards with the links that come with them: NVLink where it is on the
    board, PCIe where a bridge would be bought apart."""
    gpus = tuple(
        Gpu(
            index,
            card.printed_name,
            card.memory_mib or 0,
            compute_capability=card.compute_capability,
        )
        for index in range(count)
    )
    is_linked = card.nvlink_gb_s is not None and not card.nvlink_optional
    return Hardware(gpus, declared_links("nvlink" if is_linked else "pcie", count))


def _size(service: ServiceSettings, card: Card, gpus: int, hosts: int) -> Size:
    names = [f"host{number}" for number in range(1, hosts + 1)]
    plan = plan_fleet(service, dict.fromkeys(names, hardware_of(card, gpus)), advise=False)
    size = Size(card.name, gpus, hosts)
    if plan.clusters:
        return _of_cluster(size, plan, service)
    if not plan.replicas:
        return replace(size, problem=_problem(plan.hosts[0]))
    return _of_replicas(size, plan.replicas, service)


def _of_cluster(size: Size, plan: Plan, service: ServiceSettings) -> Size:
    """A replica over several hosts: no rates are known of the network between them."""
    each = [one.memory.kv_tokens // _request_tokens(service) for one in plan.clusters]
    shape = plan.clusters[0].shape
    over = len(plan.clusters[0].hosts)
    return replace(
        size,
        shape=f"{shape} over {over} hosts",
        replicas=len(plan.clusters),
        requests_at_once=sum(each),
    )


def _of_replicas(size: Size, replicas: Sequence[Replica], service: ServiceSettings) -> Size:
    shapes = dict.fromkeys(str(replica.shape) for replica in replicas)
    size = replace(
        size,
        shape=" + ".join(shapes),
        replicas=len(replicas),
        requests_at_once=all_at_once(replicas, _request_tokens(service)),
    )
    known = [replica.expected for replica in replicas if replica.expected is not None]
    if len(known) < len(replicas):
        return size
    return replace(
        size,
        tokens_per_s=sum(one.tokens_per_s for one in known),
        tokens_per_s_low=sum(one.tokens_per_s_low for one in known),
        tokens_per_s_high=sum(one.tokens_per_s_high for one in known),
        requests_per_s=sum(one.requests_per_s for one in known),
        ttft_ms=max(one.ttft_ms for one in known),
        tpot_ms=max(one.tpot_ms for one in known),
    )


def _request_tokens(service: ServiceSettings) -> int:
    load = service.load
    return load.input_tokens + load.output_tokens if load else service.max_model_len


def _problem(host: HostPlan) -> str:
    """Why a service does not run on a host, in short: what its largest shape lacks."""
    too_large = [one for one in host.rejected if "does not fit" in one]
    return (too_large or list(host.problems))[-1]


def _priced(size: Size, gpu_price: float | None) -> Size:
    if gpu_price is None:
        return size
    price = gpu_price * size.gpus
    rate = size.requests_per_s
    cost = messages.cost_per_1000(price, rate) if rate else None
    return replace(size, price_per_month=price, cost_per_1000_requests=cost)


def affordable(found: Iterable[Size], budget: float) -> Iterator[Size]:
    """The sizes that have a price within a monthly budget."""
    for size in found:
        if size.price_per_month is not None and size.price_per_month <= budget:
            yield size
