"""The engine of a service that leaves it to the plan, where several could serve the same files: the
estimate decides, if it leaves no doubt. Pure."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from roles.engine.engine import DEFAULT_KIND, ENGINES, engine
from roles.plan import HostPlan, Plan, Replica
from roles.topology.engines import AUTO
from roles.topology.settings import ServiceSettings

AnyService = TypeVar("AnyService", bound=ServiceSettings)


@dataclass(frozen=True)
class _Rate:
    """Tokens per second of some replicas, with the range in which most measurements lie."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:,.0f} tokens/s ({self.low:,.0f}-{self.high:,.0f})"


def rivals(service: ServiceSettings, allowed: Collection[str]) -> tuple[str, ...]:
    """The kinds of engines that could serve a service, the usual one first; none where it names
    one, or its files are made for one. `allowed` are those that the inventory has settings of."""
    usual = service.kind
    if service.engine != AUTO or engine(usual).calibration is None:
        return ()
    kinds = (one.kind for one in ENGINES.values() if one.calibration)
    able = [kind for kind in kinds if kind in allowed and _taken(service, kind)]
    return tuple(sorted(able, key=lambda kind: kind != usual))


def decided(
    service: AnyService, allowed: Collection[str], planned: Callable[[AnyService], Plan]
) -> AnyService:
    """The service with an engine, and the reason; as it is where there is nothing to decide.

    `planned` makes the plan of a service. Another engine than the usual one is taken only if it
    serves on the same kinds of cards, and its range lies above the usual one's on each.
    """
    kinds = rivals(service, allowed)
    if kinds and kinds[0] != service.kind:
        name = engine(kinds[0]).name
        return service.with_engine(kinds[0], f"{name} serves it: the inventory has no other for it")
    if len(kinds) < 2:
        return service
    plans = {kind: planned(service.with_engine(kind)) for kind in kinds}
    usual = engine(kinds[0]).name
    if service.model_recipe and service.model_recipe.arguments:
        reason = f"{usual} serves it: the options of its recipe are {usual}'s"
        return service.with_engine(kinds[0], reason)
    if service.load is None:
        reason = f"{usual} serves it: without concurrency nothing is compared"
        return service.with_engine(kinds[0], reason)
    compared = [_compared(plans[kinds[0]], plans[kind], kinds[0], kind) for kind in kinds[1:]]
    better = [kind for kind, (good, _) in zip(kinds[1:], compared, strict=True) if good]
    chosen = better[0] if better else kinds[0]
    words = "; ".join(text for _, text in compared)
    return service.with_engine(chosen, f"{engine(chosen).name} serves it: {words}")


def _compared(usual: Plan, other: Plan, usual_kind: str, kind: str) -> tuple[bool, str]:
    """Whether another engine is better on every kind of card, and the figures of each."""
    names = engine(usual_kind).name, engine(kind).name
    before, after = _rates(usual), _rates(other)
    if not before and not after:
        return False, f"neither {names[0]} nor {names[1]} has an estimate for these cards"
    if alone := sorted(before.keys() - after.keys()):
        return False, f"{names[1]} has no estimate for {', '.join(alone)}, {names[0]} has"
    if alone := sorted(after.keys() - before.keys()):
        # What serves more cards is better where the others are no worse off.
        return not before, f"{names[0]} has no estimate for {', '.join(alone)}, {names[1]} has"
    found = [_words(card, before[card], after[card], names) for card in before]
    return all(good for good, _ in found), "; ".join(text for _, text in found)


def _words(card: str, usual: _Rate, other: _Rate, names: tuple[str, str]) -> tuple[bool, str]:
    figures = f"on {card} {names[0]} has an estimated {usual}, {names[1]} {other}"
    if other.low > usual.high:
        return True, figures
    if usual.low > other.high:
        return False, figures
    return False, f"{figures}: the ranges overlap, so {names[0]} stays"


def _rates(plan: Plan) -> dict[str, _Rate]:
    """The rate of all replicas on each kind of card; none for cards without an estimate."""
    found: dict[str, list[Replica]] = {}
    for host in plan.hosts:
        for replica in host.replicas:
            found.setdefault(_card(host, replica), []).append(replica)
    return {card: rate for card, own in sorted(found.items()) if (rate := _sum(own))}


def _sum(replicas: Sequence[Replica]) -> _Rate | None:
    known = [one.expected for one in replicas if one.expected]
    if len(known) < len(replicas):
        return None
    return _Rate(
        sum(one.tokens_per_s_low for one in known),
        sum(one.tokens_per_s for one in known),
        sum(one.tokens_per_s_high for one in known),
    )


def _card(host: HostPlan, replica: Replica) -> str:
    return next(gpu.name for gpu in host.gpus if gpu.index == replica.gpus[0])


def _taken(service: ServiceSettings, kind: str) -> bool:
    """Whether an engine takes the service's settings."""
    if kind == DEFAULT_KIND:
        return True
    given = {name: getattr(service, name) for name in service.model_fields_set}
    try:
        ServiceSettings.model_validate(
            {
                name: value
                for name, value in given.items()
                if name in ServiceSettings.model_fields and name != "engine"
            }
            | {"engine": kind}
        )
    except ValidationError:
        return False
    return True
