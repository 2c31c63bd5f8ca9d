"""Prints a plan for a person to review."""

from collections.abc import Iterable, Sequence

from roles.engine.engine import engine
from roles.hardware import summary
from roles.plan import HostPlan, MemorySum, Plan
from roles.topology.clusters import describe_cluster

HEADER = ("host", "GPUs", "replica", "on GPU", "shape", "port", "KV tokens", "requests at once")


def explain(plan: Plan) -> str:
    """The whole plan: a table of replicas, then each host's memory sums, reasons and warnings."""
    rows = [row for host in plan.hosts for row in _rows(host)]
    count = f"{len(plan.replicas)} replica{'s' if len(plan.replicas) != 1 else ''}"
    parts = [f"Plan for {plan.service}: {plan.model}, {count}", "", table([HEADER, *rows]), ""]
    parts += [line for host in plan.hosts for line in _details(host)]
    parts += [f"as a cluster: {describe_cluster(cluster)}" for cluster in plan.clusters]
    parts += [f"no cluster: {problem}" for problem in plan.cluster_problems]
    return "\n".join(parts).rstrip() + "\n"


def explain_host(host: HostPlan) -> str:
    """The plan of one host: its replicas, memory sums, reasons and warnings."""
    return "\n".join([table([HEADER, *_rows(host)]), "", *_details(host)]).rstrip() + "\n"


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


def _rows(host: HostPlan) -> list[tuple[str, ...]]:
    gpus = summary(host.gpus)
    if not host.replicas:
        return [(host.host, gpus, "none", "", "", "", "", "")]
    return [
        (
            host.host,
            gpus,
            replica.name,
            ",".join(map(str, replica.gpus)),
            str(replica.shape),
            str(replica.port),
            str(replica.memory.kv_tokens),
            _requests(replica.memory),
        )
        for replica in host.replicas
    ]


def _requests(memory: MemorySum) -> str:
    """Concurrent requests of the maximum length; "any" for a model without KV cache."""
    return str(int(memory.max_concurrency)) if memory.max_concurrency < 1e9 else "any"


def _details(host: HostPlan) -> list[str]:
    lines = [f"{host.host}:"]
    sums = {str(replica.shape): replica for replica in host.replicas}
    lines += [
        f"  memory a GPU, {shape}: {memory_line(replica.memory, replica.engine)}"
        for shape, replica in sums.items()
    ]
    lines += [f"  why: {reason}" for reason in host.reasons]
    lines += [f"  rejected: {reason}" for reason in host.rejected]
    # Omit remedies that a reason already names.
    remaining = [one for one in host.remedies if not any(one in text for text in host.reasons)]
    lines += [f"  would fit with: {remedy}" for remedy in remaining]
    lines += [f"  warning: {warning}" for warning in host.warnings]
    return [*lines, ""]


def memory_line(memory: MemorySum, kind: str) -> str:
    """One GPU's memory sum as a line, in GiB; the engine's parts add up to the total."""
    parts = engine(kind).memory_parts
    text = " + ".join(f"{name} {getattr(memory, part):.1f}" for part, name in parts)
    line = f"{memory.total_gib:.1f} GiB = {text}"
    if memory.promised_kv_gib == memory.kv_cache_gib:
        return line
    return f"{line} (at least {memory.promised_kv_gib:.1f} GiB of KV cache are promised)"
