"""The engines of a service that leaves them to the plan, where several could serve the same files:
for each kind of card the estimate decides, if it leaves no doubt. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from pydantic import ValidationError

from roles.engine.engine import DEFAULT_KIND, ENGINES, engine
from roles.plan import HostPlan, Load, Plan, Replica
from roles.topology.engines import AUTO, Chosen
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
    service: AnyService,
    allowed: Collection[str],
    planned: Callable[[AnyService], Plan],
    unsuited: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> AnyService:
    """The service with an engine for each kind of card, and the reasons; as it is where there is
    nothing to decide.

    `planned` makes the plan of a service. `unsuited` are cards, by kinds of engines that hosts of
    theirs are not set up for. A card gets another engine than the usual one if the usual one does
    not serve it, or if the other's range lies above the usual one's.
    """
    kinds = rivals(service, allowed)
    if kinds and kinds[0] != service.kind:
        name = engine(kinds[0]).name
        return service.with_engine(kinds[0], f"{name} serves it: the inventory has no other for it")
    if len(kinds) < 2:
        return service
    usual = engine(kinds[0]).name
    if service.model_recipe and service.model_recipe.arguments:
        reason = f"{usual} serves it: the options of its recipe are {usual}'s"
        return service.with_engine(kinds[0], reason)
    chosen = _by_card(service, kinds, planned, unsuited)
    if service.adapters and len({one.kind for one in chosen.values() if one.reason}) > 1:
        # Clients would see which engine answers.
        why = "engines name adapters differently, so all replicas have one"
        return service.with_engine(kinds[0], f"{usual} serves it: {why}")
    return service.with_engines(chosen) if chosen else service


def _by_card(
    service: AnyService,
    kinds: Sequence[str],
    planned: Callable[[AnyService], Plan],
    unsuited: Mapping[str, Collection[str]],
) -> dict[str, Chosen]:
    """The engine of each kind of card, the usual one, without a reason, where none serves it; the
    first kind is the usual one. Empty where none serves any."""
    plans = {kind: planned(service.with_engine(kind)) for kind in kinds}
    able = {kind: _cards(plan) for kind, plan in plans.items()}
    # Where nothing else serves a card, what its hosts lack is told instead.
    left = {
        kind: {*unsuited.get(kind, ())} & {*able[kinds[0]]} & {*able[kind]} for kind in kinds[1:]
    }
    usual = {
        card: Chosen(next(kind for kind in kinds if card in able[kind]))
        for card in dict.fromkeys(card for kind in kinds for card in able[kind])
    }
    if not usual:
        return {}
    before = _rates(planned(service.with_engines(usual)))
    found: dict[str, Chosen] = {}
    for kind in kinds[1:]:
        # The same cards serve in both plans, so that each has the same load in both.
        taken = {*able[kind]} - left[kind]
        other = {card: Chosen(kind) if card in taken else one for card, one in usual.items()}
        after = _rates(planned(service.with_engines(other)))
        for card in usual:
            if card not in able[kinds[0]] and card not in able[kind]:
                continue
            if card in left[kind]:
                why = f"hosts with {card} are not set up for {engine(kind).name}"
                found.setdefault(card, Chosen(kinds[0], why))
            elif card not in found or found[card].kind == kinds[0]:
                rates = before.get(card), after.get(card)
                found[card] = _compared(card, able, (kinds[0], kind), rates, service.load)
    others = {gpu.name: Chosen(kinds[0]) for host in plans[kinds[0]].hosts for gpu in host.gpus}
    return found | {card: one for card, one in others.items() if card not in found}


def _compared(
    card: str,
    able: Mapping[str, Collection[str]],
    kinds: tuple[str, str],
    rates: tuple[_Rate | None, _Rate | None],
    load: Load | None,
) -> Chosen:
    """The better of two engines on a kind of card, with the figures."""
    names = engine(kinds[0]).name, engine(kinds[1]).name
    for kind, name, one in zip(kinds, names, reversed(kinds), strict=True):
        if card not in able[kind]:
            return Chosen(one, f"{name} does not serve it on {card}")
    if load is None:
        return Chosen(kinds[0], f"without concurrency nothing is compared on {card}")
    usual, other = rates
    if usual is None or other is None:
        without = names[0] if usual is None else names[1]
        return Chosen(kinds[0], f"{without} has no estimate for {card}")
    figures = f"on {card} {names[0]} has an estimated {usual}, {names[1]} {other}"
    if other.low > usual.high:
        return Chosen(kinds[1], figures)
    if usual.low > other.high:
        return Chosen(kinds[0], figures)
    return Chosen(kinds[0], f"{figures}: the ranges overlap, so {names[0]} stays")


def _cards(plan: Plan) -> tuple[str, ...]:
    """The kinds of cards that serve."""
    found = (_card(host, replica) for host in plan.hosts for replica in host.replicas)
    return tuple(dict.fromkeys(found))


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
