"""`size`: on which cards, and how many of them, a service runs, how fast, and at what cost."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from roles.hardware import Card, close_names, find_card, known_cards
from roles.host import IN_JSON, parse_yaml, read_text, validation_problems
from roles.topology.cases import INPUT_TOKENS, OUTPUT_TOKENS
from roles.topology.explain import table, wrapped
from roles.topology.service_fields import DEFAULT_MIN_CONCURRENCY
from roles.topology.settings import ServiceSettings
from roles.topology.sizing import GPU_COUNTS, HOST_COUNTS, Size, affordable, sizes

HEADER = ("GPUs", "shape", "at once", "tokens/s", "range", "TTFT ms", "ITL ms")
PRICED_HEADER = (*HEADER, "a month", "1000 requests")
# The options that are settings of a service.
_LOADS = ("concurrency", "input_tokens", "output_tokens", "max_model_len", "min_concurrency")
# Version of the JSON. Any change of its fields raises it.
SCHEMA = 2
_PRICES: TypeAdapter[dict[str, float]] = TypeAdapter(
    dict[str, Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]]
)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `size` takes."""
    what = command.add_argument_group("the service: a model and a load, or one of an inventory")
    what.add_argument("model", nargs="?", help="an id of the catalog, or a file of `roles.models`")
    what.add_argument("--concurrency", type=float, help="requests at once (1)")
    what.add_argument("--input-tokens", type=int, help=f"of each request ({INPUT_TOKENS})")
    what.add_argument("--output-tokens", type=int, help=f"of each request ({OUTPUT_TOKENS})")
    what.add_argument("--max-model-len", type=int, help="the longest request (input + output)")
    what.add_argument(
        "--min-concurrency",
        type=int,
        help=f"such requests that a replica must hold ({DEFAULT_MIN_CONCURRENCY})",
    )
    what.add_argument("--inventory", help="for instance inventories/prod.py")
    what.add_argument("--service", help="its name, where the inventory has several")
    how = command.add_argument_group("the rows")
    how.add_argument("--cards", help="only cards with one of these in their names: h100,l40s")
    how.add_argument("--gpus", type=_counts(64), default=GPU_COUNTS, help="a host's (1,2,4,8)")
    how.add_argument("--hosts", type=_counts(16), default=HOST_COUNTS, help="(1,2,3,4)")
    how.add_argument("--prices", help="a YAML file: what one GPU of a card costs a month")
    how.add_argument("--budget", type=float, help="only what costs at most this a month")
    how.add_argument("--all", action="store_true", help="every row, not the best of each card")
    how.add_argument("--json", action="store_true", help="for programs")


def size(options: argparse.Namespace, declared: Sequence[ServiceSettings] = ()) -> str:
    """The answer; ValueError says what is wrong with the options. `declared` are the services of
    the inventory that they name."""
    if options.budget is not None and options.prices is None:
        raise ValueError("--budget needs prices: name their file by --prices")
    if options.budget is not None and not 0 < options.budget < math.inf:
        raise ValueError(f"--budget: {options.budget} is no sum above 0; write one such as 5000")
    service = _service(options, declared)
    prices = _prices(Path(options.prices)) if options.prices else {}
    found: Sequence[Size] = sizes(
        service, _cards(options.cards), prices, options.gpus, options.hosts
    )
    if options.budget is not None:
        found = tuple(affordable(found, options.budget))
    return _as_json(service, found) if options.json else _as_text(service, found, options.all)


def _counts(most: int) -> Any:
    def counts(text: str) -> tuple[int, ...]:
        numbers = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
        if not all(1 <= number <= most for number in numbers):
            raise argparse.ArgumentTypeError(f"write numbers of 1 to {most}: 1,2,4")
        return tuple(dict.fromkeys(numbers))

    return counts


def _service(options: argparse.Namespace, declared: Sequence[ServiceSettings]) -> ServiceSettings:
    if (options.model is None) == (options.inventory is None):
        raise ValueError("name a model or an --inventory, one of both")
    if options.inventory is not None:
        return _of_inventory(options, declared)
    if options.service is not None:
        raise ValueError("--service needs the --inventory that has it")
    given = {
        "concurrency": 1.0 if options.concurrency is None else options.concurrency,
        "input_tokens": INPUT_TOKENS if options.input_tokens is None else options.input_tokens,
        "output_tokens": OUTPUT_TOKENS if options.output_tokens is None else options.output_tokens,
    }
    length = options.max_model_len
    if length is None:
        length = given["input_tokens"] + given["output_tokens"]
    settings = {"name": "size", "model": options.model, "max_model_len": length, **given}
    if options.min_concurrency is not None:
        settings["min_concurrency"] = options.min_concurrency
    try:
        return ServiceSettings.model_validate(settings)
    except ValidationError as error:
        problems = validation_problems(error, ServiceSettings, "", IN_JSON)
        implied = options.max_model_len is None
        raise ValueError("; ".join(_of_option(one, implied) for one in problems)) from None


def _of_option(problem: str, implied: bool) -> str:
    """A problem of a setting, under the name of its option. `implied` says that the longest request
    follows from the tokens."""
    name, found, rest = problem.partition(": ")
    if name == "max_model_len" and implied:
        return f"--input-tokens and --output-tokens: together {rest}"
    return f"--{name.replace('_', '-')}: {rest}" if found and name in _LOADS else problem


def _of_inventory(
    options: argparse.Namespace, declared: Sequence[ServiceSettings]
) -> ServiceSettings:
    given = [f"--{name.replace('_', '-')}" for name in _LOADS if getattr(options, name) is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: the inventory's service says it; leave it out")
    names = ", ".join(service.name for service in declared)
    chosen = [one for one in declared if options.service in (None, one.name)]
    if len(chosen) != 1:
        wrong = "several services" if options.service is None else f"no {options.service!r}"
        raise ValueError(f"{options.inventory} has {wrong}: name one by --service: {names}")
    return chosen[0]


def _cards(wanted: str | None) -> tuple[Card, ...]:
    """The cards whose names have one of the wanted parts; all without one."""
    if wanted is None:
        return known_cards()
    found: dict[str, Card] = {}
    for part in (part.strip() for part in wanted.split(",")):
        like = [card for card in known_cards() if part and part.lower() in card.name.lower()]
        exact = [card for card in like if part.lower() in (card.name.lower(), _short(card.name))]
        matching = exact or like
        if not matching:
            raise ValueError(f"--cards: no card is named like {part!r}{_meant(part)}")
        found |= {card.name: card for card in matching}
    return tuple(found.values())


def _short(name: str) -> str:
    """A card's name as people write it: without its vendor."""
    words = name.lower().split()
    return " ".join(word for word in words if word not in ("nvidia", "geforce", "amd", "instinct"))


def _prices(file: Path) -> dict[str, float]:
    """The price of one GPU a month, by the card's name in the table."""
    try:
        given = _PRICES.validate_python(parse_yaml(read_text(file)))
    except ValidationError as error:
        first = next(validation_problems(error, BaseModel, "", IN_JSON))
        line = "write a line for each card: NVIDIA L40S: 900"
        raise ValueError(f"{file}: {first}; {line}") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{file}: {error}") from None
    known: dict[str, float] = {}
    for name, price in given.items():
        card = find_card(name)
        if card is None:
            raise ValueError(f"{file}: {name!r} is no card of the table{_meant(name)}")
        known[card.name] = price
    return known


def _meant(name: str) -> str:
    close = close_names(name)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _as_json(service: ServiceSettings, found: Sequence[Size]) -> str:
    return json.dumps(
        {
            "schema": SCHEMA,
            "model": service.model.id,
            "load": asdict(service.load) if service.load else None,
            "max_model_len": service.max_model_len,
            "min_concurrency": service.min_concurrency,
            "sizes": [asdict(one) for one in found],
        },
        indent=2,
    )


def _as_text(service: ServiceSettings, found: Sequence[Size], is_whole: bool) -> str:
    fitting = [one for one in found if one.fits]
    shown = fitting if is_whole else _best_of_each(fitting)
    left = [one for one in found if not one.fits]
    if not is_whole:
        named = {one.card for one in fitting}
        left = [one for one in _largest_of_each(left) if one.card not in named]
    least = f"{service.min_concurrency} requests of {service.max_model_len} tokens"
    parts = [f"{service.model.id}, {_load(service)}", f"a replica holds at least {least}", ""]
    header = PRICED_HEADER if any(one.price_per_month for one in found) else HEADER
    if shown:
        parts += [table([header, *(_row(one)[: len(header)] for one in shown)]), ""]
    if left:
        parts += [*(wrapped(f"not on {_name(one)}: {one.problem}") for one in left), ""]
    if len(shown) < len(fitting):
        parts += [f"The best of each card; --all shows all {len(found)} rows."]
    return "\n".join(parts).rstrip()


def _load(service: ServiceSettings) -> str:
    load = service.load
    if load is None:
        return f"requests of {service.max_model_len} tokens"
    plural = "" if load.concurrency == 1 else "s"
    each = f"{load.input_tokens} + {load.output_tokens} tokens"
    return f"{load.concurrency:g} request{plural} at once of {each}"


def _best_of_each(found: Sequence[Size]) -> list[Size]:
    """The first of each card, in the given order."""
    first: dict[str, Size] = {}
    for one in found:
        first.setdefault(one.card, one)
    return list(first.values())


def _largest_of_each(found: Sequence[Size]) -> list[Size]:
    by_size = sorted(found, key=lambda one: (one.card, one.gpus))
    return list({one.card: one for one in by_size}.values())


def _name(one: Size) -> str:
    times = f"{one.hosts} x " if one.hosts > 1 else ""
    return f"{times}{one.gpus_per_host}x {one.card}"


def _row(one: Size) -> tuple[str, ...]:
    def shown(value: float | None, form: str = ",.0f") -> str:
        return "" if value is None else format(value, form)

    return (
        _name(one),
        f"{one.replicas} x {one.shape}" if one.replicas > 1 else one.shape,
        "any" if one.requests_at_once is None else str(one.requests_at_once),
        shown(one.tokens_per_s),
        f"{shown(one.tokens_per_s_low)}-{shown(one.tokens_per_s_high)}" if one.tokens_per_s else "",
        shown(one.ttft_ms),
        shown(one.tpot_ms, ".1f"),
        shown(one.price_per_month),
        shown(one.cost_per_1000_requests, ".3g"),
    )
