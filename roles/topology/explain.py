"""Prints a plan for a person to review: in short, or with all that led to it."""

import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby

from roles.engine.engine import engine
from roles.hardware import summary
from roles.plan import HostPlan, MemorySum, Plan, Replica
from roles.topology.clusters import describe_cluster
from roles.topology.head_line import head_line, requests_at_once

HEADER = ("host", "replica", "on GPU", "shape", "port", "KV tokens", "requests at once", "engine")
WIDTH = 100
_SHORT = (" with expert parallel", " EP")
# Of equal hosts so many are named.
MAX_NAMED = 6


def explain(plan: Plan, whole: bool = False) -> str:
    """The plan: what was asked and is held, a table of replicas, then reasons and warnings by host.

    `whole` adds memory sums and rejected shapes, and a row for each replica.
    """
    count = f"{len(plan.replicas)} replica{'s' if len(plan.replicas) != 1 else ''}"
    parts = [f"Plan for {plan.service}: {plan.model}, {count}"]
    parts += [*_wrapped_head(head_line(plan)), ""]
    parts += [_table_of(plan.hosts, whole), "", *_of_hosts(plan.hosts, whole)]
    planned = {replica.hosts for replica in plan.replicas}
    parts += [
        wrapped(f"as a cluster: {describe_cluster(cluster)}")
        for cluster in plan.clusters
        # What a replica is, its hosts say; with wide expert parallel it would be another.
        if cluster.hosts not in planned or cluster.data_parallel_size > 1
    ]
    parts += [wrapped(f"no cluster: {problem}") for problem in plan.cluster_problems]
    return "\n".join(parts).rstrip() + "\n"


def explain_host(host: HostPlan) -> str:
    """The whole plan of one host: its replicas, memory sums, reasons and warnings."""
    parts = [_table_of([host], whole=True), "", *_of_hosts([host], whole=True)]
    return "\n".join(parts).rstrip() + "\n"


def _table_of(hosts: Sequence[HostPlan], whole: bool) -> str:
    """A row for each replica; where engines differ, with a column for them."""
    rows = [HEADER, *(row for host in hosts for row in _rows(host, whole))]
    engines = {replica.engine for host in hosts for replica in host.replicas}
    return table(rows if len(engines) > 1 else [row[:-1] for row in rows])


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of text in aligned columns, the first row underlined."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _rows(host: HostPlan, whole: bool) -> list[tuple[str, ...]]:
    """The replicas of a host; in short those that differ only in number, GPUs and port are one."""
    if not host.placed:
        return [(host.host, "none", "", "", "", "", "", "")]
    parts = [_part_row(host.host, one) for one in host.parts]
    if whole:
        return [*(_row([replica]) for replica in host.replicas), *parts]
    return [
        *(
            _row(list(alike))
            for _, alike in groupby(
                host.replicas, key=lambda one: (one.engine, one.shape, one.memory)
            )
        ),
        *parts,
    ]


def _part_row(host: str, part: Replica) -> tuple[str, ...]:
    """A host's part of a replica whose head is another host."""
    gpus = ",".join(map(str, part.gpus))
    return (host, part.name, gpus, f"part of {part.id}", "", "", "", part.engine)


def _row(alike: Sequence[Replica]) -> tuple[str, ...]:
    first, last = alike[0], alike[-1]
    several = len(alike) > 1
    ports = [replica.port for replica in alike]
    in_order = several and ports == list(range(first.port, first.port + len(ports)))
    at_once = requests_at_once(first)
    return (
        first.host,
        f"{first.name} to {last.number}" if several else first.name,
        " ".join(",".join(map(str, replica.gpus)) for replica in alike),
        (f"{len(alike)} x " if several else "") + str(first.shape).replace(*_SHORT),
        f"{first.port}-{last.port}" if in_order else ",".join(map(str, ports)),
        str(first.memory.kv_tokens),
        "any" if at_once is None else f"{at_once}{' each' if several else ''}",
        engine(first.engine).name,
    )


def _of_hosts(hosts: Iterable[HostPlan], whole: bool) -> list[str]:
    """The reasons of each host; hosts with the same ones are one paragraph."""
    names: dict[tuple[str, ...], list[str]] = {}
    for host in hosts:
        names.setdefault((summary(host.gpus), *_details(host, whole)), []).append(host.host)
    lines: list[str] = []
    for (gpus, *details), alike in names.items():
        more = f" and {len(alike) - MAX_NAMED} more" if len(alike) > MAX_NAMED else ""
        lines += [f"{', '.join(alike[:MAX_NAMED])}{more}: {gpus}", *details, ""]
    return lines


def _details(host: HostPlan, whole: bool) -> list[str]:
    sums = {str(replica.shape): replica for replica in host.placed} if whole else {}
    memory = [
        f"memory a GPU, {shape}: {memory_line(replica.memory, replica.engine)}"
        for shape, replica in sums.items()
    ]
    lines = [
        *memory,
        *(f"why: {reason}" for reason in host.reasons),
        *(f"rejected: {reason}" for reason in host.rejected if whole),
        *(f"does not serve: {problem}" for problem in host.problems),
        *(f"warning: {warning}" for warning in host.warnings),
    ]
    lines = [part for line in lines for part in _wrapped(line, WIDTH - 2)]
    # What is there to be pasted stays on one line.
    return [f"  {line}" for line in (*lines, *(f"would fit with: {one}" for one in host.remedies))]


def _wrapped_head(line: str) -> list[str]:
    """The head line, broken between its parts alone."""
    parts = line.replace(" ", "\xa0").replace("\xa0·\xa0", "\xa0· ")
    return [one.replace("\xa0", " ") for one in textwrap.wrap(parts, WIDTH)]


def wrapped(line: str) -> str:
    """A sentence for the screen, in lines of at most WIDTH characters."""
    return "\n".join(_wrapped(line, WIDTH))


def _wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(
        line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def memory_line(memory: MemorySum, kind: str) -> str:
    """One GPU's memory sum as a line, in GiB; the engine's parts add up to the total."""
    parts = engine(kind).memory_parts
    text = " + ".join(f"{name} {getattr(memory, part):.1f}" for part, name in parts)
    line = f"{memory.total_gib:.1f} GiB = {text}"
    if memory.promised_kv_gib == memory.kv_cache_gib:
        return line
    return f"{line} (at least {memory.promised_kv_gib:.1f} GiB of KV cache are promised)"
