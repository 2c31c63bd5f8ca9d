"""Which groups of GPUs a plan needs to be measured, and the verdicts on them. Pure."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args

from roles.engine import Build
from roles.hardware import (
    Hardware,
    LinkOutcome,
    LinkVerdict,
    OutputError,
    find_card,
    p2p_fault,
    parse_nccl,
)
from roles.interconnect.modes import next_mode
from roles.plan import HostPlan

MARK = "@@ "


@dataclass(frozen=True)
class Group:
    """GPUs that are measured together.

    `p2p` says whether with P2P, which a setting may forbid; `also_without_p2p` whether without it,
    too.
    """

    gpus: tuple[int, ...]
    p2p: bool
    also_without_p2p: bool


@dataclass(frozen=True)
class Measurement:
    """What a host answered: verdicts, groups that it did not measure as they are busy, problems."""

    verdicts: tuple[LinkVerdict, ...] = ()
    busy: tuple[tuple[int, ...], ...] = ()
    problems: tuple[str, ...] = ()


def still_valid(
    verdicts: Iterable[LinkVerdict], engine: Build, driver_version: str | None
) -> tuple[LinkVerdict, ...]:
    """The verdicts that were measured with this engine and driver."""
    name = engine.version_name
    return tuple(
        one for one in verdicts if (one.engine, one.driver_version) == (name, driver_version)
    )


def unmeasured(
    plan: HostPlan, hardware: Hardware, known: Sequence[LinkVerdict], engine: Build
) -> list[Group]:
    """The groups that still need a measurement, small ones first.

    These are the groups that the plan needs, and those with recorded verdicts that are no longer
    valid: the plan may depend on them.
    """
    wanted = {*(one.gpus for one in hardware.interconnect), *wanted_groups(plan)}
    results = [{"gpus": one.gpus, "p2p": one.p2p, "outcome": one.outcome} for one in known]
    groups = [_group(gpus, hardware, engine) for gpus in sorted(wanted, key=_small_first)]
    return [group for group in groups if next_mode(vars(group), results) is not None]


def wanted_groups(plan: HostPlan) -> list[tuple[int, ...]]:
    """The groups of GPUs that must work together: each replica's GPUs, and every two neighbours
    among them."""
    groups = (
        group
        for replica in plan.placed
        if len(replica.gpus) > 1
        for group in (*pairwise(replica.gpus), replica.gpus)
    )
    return list(dict.fromkeys(groups))


def merged(
    before: Sequence[LinkVerdict], known: Sequence[LinkVerdict], new: Sequence[LinkVerdict]
) -> tuple[LinkVerdict, ...]:
    """All verdicts after some were measured; old verdicts on a measured group are dropped."""
    measured = {one.gpus for one in new}
    kept = [one for one in before if one in known or one.gpus not in measured]
    by_way = {(one.gpus, one.p2p): one for one in (*kept, *new)}
    return tuple(
        by_way[way] for way in sorted(by_way, key=lambda way: (*_small_first(way[0]), way))
    )


def parse_answer(
    lines: Iterable[str],
    engine: Build,
    driver_version: str | None,
    requested: Iterable[tuple[int, ...]],
) -> Measurement:
    """Read the output of the host's program; its last foreign line explains an early end.

    A line that the program would not write is a problem, and so is one of GPUs that were not
    `requested`.
    """
    lines = list(lines)
    results = [_json(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]
    wanted = set(requested)
    verdicts, busy, problems = [], [], []
    for one in results:
        try:
            if "gpus" in one and _gpus(one) not in wanted:
                raise ValueError(f"GPUs that were not asked for: {one['gpus']}")
            if (found := _read(one, engine, driver_version)) is None:
                continue
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            found = f"the host's answer is not as expected ({_printable(_repr(error))[:80]})"
        kept = {str: problems, tuple: busy}.get(type(found), verdicts)
        kept.append(found)
    if not problems and not any("done" in one for one in results):
        others = [line for line in lines if line.strip() and not line.startswith(MARK)]
        last = f": {_printable(others[-1])}" if others else ""
        problems.append(f"the measurement did not finish{last}")
    return Measurement(tuple(verdicts), tuple(busy), tuple(dict.fromkeys(problems)))


def _repr(error: Exception) -> str:
    # The text of a RecursionError may hold the whole answer.
    return "nested too deeply" if isinstance(error, RecursionError) else repr(error)


def summaries(verdicts: Sequence[LinkVerdict], groups: Iterable[tuple[int, ...]]) -> Iterator[str]:
    """A line for each group: "GPUs 0,1: works, 21.3 GB/s over SHM (P2P: hangs)"."""
    for gpus in groups:
        own = [one for one in verdicts if one.gpus == gpus]
        if own:
            yield f"{group_name(gpus)}: {evidence(own)}"


def evidence(verdicts: Sequence[LinkVerdict]) -> str:
    """The verdicts on one group in words: "works, 21.3 GB/s over SHM (P2P: hangs)"."""
    own = {one.p2p: one for one in verdicts}
    fault = p2p_fault(verdicts, verdicts[0].gpus)
    used = own.get(fault is None) or next(iter(own.values()))
    other = own.get(not used.p2p)
    way = "P2P" if not used.p2p else "without P2P"
    more = f" ({way}: {_summary(other)})" if other else "" if used.p2p else " (without P2P)"
    return f"{_summary(used)}{more}"


def _group(gpus: tuple[int, ...], hardware: Hardware, engine: Build) -> Group:
    names = {gpu.name for gpu in hardware.gpus if gpu.index in gpus}
    cards = [find_card(name) for name in names]
    # An engine's environment that forbids P2P forbids it for these tests too.
    allowed = engine.environment.get("NCCL_P2P_DISABLE", "0") == "0"
    return Group(gpus, allowed, any(card is not None and card.consumer for card in cards))


def _small_first(gpus: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return len(gpus), gpus


def _read(
    one: Mapping[str, Any], engine: Build, driver_version: str | None
) -> LinkVerdict | tuple[int, ...] | str | None:
    """What one line reports: a verdict, GPUs that are in use, or a problem; None for other lines.

    KeyError, TypeError or ValueError for what the host's program would not write.
    """
    if "problem" in one:
        return _printable(str(one["problem"]))
    if one.get("busy"):
        return _gpus(one)
    if one.get("memory"):
        return f"{group_name(_gpus(one))}: {_printable(one['detail'])}; free the GPUs' memory"
    if one.get("unready"):
        return f"{group_name(_gpus(one))}: a process did not start: {_printable(one['detail'])}"
    return _verdict(one, engine, driver_version) if "outcome" in one else None


def _gpus(one: Mapping[str, Any]) -> tuple[int, ...]:
    gpus = one["gpus"]
    if not isinstance(gpus, list) or not gpus or not all(type(gpu) is int for gpu in gpus):
        raise ValueError(f"gpus {gpus}")
    return tuple(gpus)


def _json(text: str) -> Mapping[str, Any]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return {"problem": "the host's answer is not as expected (no JSON)"}
    return read if isinstance(read, dict) else {}


def _verdict(one: Mapping[str, Any], engine: Build, driver_version: str | None) -> LinkVerdict:
    rate, outcome, way = one.get("gb_s"), one["outcome"], one["p2p"]
    if outcome not in get_args(LinkOutcome) or type(way) is not bool:
        raise ValueError(f"outcome {outcome}, p2p {way}")
    # Not a number compares as false.
    if rate is not None and not (type(rate) in (int, float) and 0 <= rate < 1e6):
        raise ValueError(f"gb_s {rate}")
    if outcome == "works" and rate is None:
        raise ValueError("it works, without gb_s")
    return LinkVerdict(
        gpus=_gpus(one),
        p2p=way,
        outcome=outcome,
        gb_s=float(f"{rate:.3g}") if rate is not None else None,
        transport=_transport(_text(one, "log") or ""),
        library=_printable(library) if (library := _text(one, "library")) else None,
        driver_version=driver_version,
        engine=engine.version_name,
        detail=_printable(one["detail"]) if one.get("detail") else None,
    )


def _text(one: Mapping[str, Any], key: str) -> str | None:
    if not isinstance(text := one.get(key), str | None):
        raise TypeError(f"{key} is no text")
    return text


def _transport(log: str) -> str | None:
    try:
        return ", ".join(parse_nccl(log).transports) or None
    except OutputError:
        return None


def _printable(text: str) -> str:
    return re.sub(r"[^ -~]+", " ", text).strip()[:300] or "?"


def group_name(gpus: Sequence[int]) -> str:
    """GPUs in print: "GPUs 0,1"."""
    return f"GPUs {','.join(map(str, gpus))}"


def _summary(verdict: LinkVerdict) -> str:
    if not verdict.works:
        detail = f", {verdict.detail}" if verdict.detail else ""
        return f"{verdict.outcome}{detail}"
    parts = (verdict.transport or verdict.library or "?").split(", ")
    over = "+".join(dict.fromkeys(part.split("/")[0] for part in parts))
    return f"works, {verdict.gb_s} GB/s over {over}"
