"""The second line of a plan: what was asked, and what the plan holds and does. Pure."""

from collections.abc import Iterable

from roles.engine.engine import engine
from roles.plan import Load, Plan, Replica

# More than any KV cache holds: a model without one.
ANY = 1e9


def head_line(plan: Plan) -> str:
    """What was asked of a service, how many requests its replicas hold, its estimate, and the hosts
    that do nothing for it."""
    load = plan.load
    parts = [f"asked {load.concurrency:,.10g}" if load else "no concurrency is stated", _held(plan)]
    if load and plan.replicas:
        parts.append(_estimate(plan, load))
    over = sorted({len(one.hosts) for one in plan.replicas if one.members})
    if over:
        parts.append(f"replicas over {' and '.join(map(str, over))} hosts")
    given = [host for host in plan.hosts if host.gpus]
    idle = sum(not host.placed for host in given)
    if idle:
        parts.append(f"{idle} of {len(given)} hosts idle" if len(given) > 1 else "the host is idle")
    return " · ".join(parts)


def requests_at_once(replica: Replica, tokens: int | None = None) -> int | None:
    """The requests that a replica is predicted to run at once: of some tokens each, or of maximum
    length; None for any number."""
    memory, limit = replica.memory, replica.max_num_seqs
    if memory.max_concurrency >= ANY:
        return limit
    # An engine that does not fill the memory has a place of maximum length for each request.
    if tokens is None or not engine(replica.engine).fills_memory:
        most = int(memory.max_concurrency)
    else:
        most = memory.kv_tokens // tokens
    return most if limit is None else min(most, limit)


def all_at_once(replicas: Iterable[Replica], tokens: int | None = None) -> int | None:
    """The requests that all replicas run at once; see `requests_at_once`."""
    each = [requests_at_once(replica, tokens) for replica in replicas]
    known = [count for count in each if count is not None]
    return sum(known) if len(known) == len(each) else None


def _held(plan: Plan) -> str:
    if not plan.replicas:
        return "holds none but over several hosts" if plan.clusters else "holds none"
    length = plan.replicas[0].max_model_len
    longest = all_at_once(plan.replicas)
    if longest is None:
        return f"holds any number of {length} tokens"
    text = f"holds {longest:,} of {length} tokens"
    if plan.load is None or longest >= plan.load.concurrency:
        return text
    usual = plan.load.input_tokens + plan.load.output_tokens
    if usual == length:
        return text
    return f"{text}, {all_at_once(plan.replicas, usual):,} of {usual}"


def _estimate(plan: Plan, load: Load) -> str:
    known = [replica.expected for replica in plan.replicas if replica.expected is not None]
    if not known:
        return "no throughput is known"
    rate = sum(one.tokens_per_s for one in known)
    low, high = (
        sum(one.tokens_per_s_low for one in known),
        sum(one.tokens_per_s_high for one in known),
    )
    count = len(plan.replicas)
    part = f" from {len(known)} of {count} replicas" if len(known) < count else ""
    if load.output_tokens == 1:
        figures = f"{rate:,.1f} requests/s ({low:,.1f}-{high:,.1f})"
        return f"{figures} for {load.input_tokens} tokens{part}"
    return (
        f"{rate:,.0f} tokens/s ({low:,.0f}-{high:,.0f}) for {load.input_tokens} + "
        f"{load.output_tokens} tokens{part}"
    )
