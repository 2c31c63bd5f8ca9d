"""Replicas that span hosts: tensor parallel inside each host, pipeline parallel across hosts.

vLLM's pipeline only sends a step's activations between hosts, and Ethernet is fast enough for that;
tensor parallel across hosts would need two all-reduces a layer. All hosts of a cluster must have
the same GPUs: each stage waits for the slowest. With fast links (RDMA of at least 200 Gbit/s a
host, as deployments of DeepSeek use) wide expert parallel serves a mixture of experts better:
attention is replicated to data-parallel ranks, and experts are distributed over all GPUs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from roles.engine.params import EngineParams, gpu_memory
from roles.engine.planning import Planning
from roles.hardware import Hardware, summary
from roles.models import Model, shape_problems
from roles.plan import Cluster, MemorySum, Plan, Shape
from roles.topology.service_fields import MAX_HOSTS

WIDE_GBIT_S = 200


def clusters(
    engine: Planning,
    model: Model,
    params: EngineParams,
    hardware: Mapping[str, Hardware],
    network_gbit_s: Mapping[str, float] | None = None,
) -> tuple[tuple[Cluster, ...], tuple[str, ...]]:
    """Clusters of as few equal hosts as hold the model, and the problems of the other hosts.

    `hardware` are hosts that cannot hold the model alone. `network_gbit_s` is the network speed of
    hosts, if it is stated.
    """
    if not engine.spans_hosts:
        return (), (f"{engine.name} serves on one host alone",)
    speeds = network_gbit_s or {}
    found: list[Cluster] = []
    problems: list[str] = []
    matched = _hosts_by_gpus(hardware)
    for names in matched:
        machine = hardware[names[0]]
        wide = all(speeds.get(name, 0) >= WIDE_GBIT_S for name in names)
        smallest = smallest_cluster(engine, model, params, machine, len(names), wide)
        if smallest is None and len(names) == 1:
            continue
        if smallest is None:
            problems.append(_too_few(names, machine))
            continue
        count, ranks, shape, memory = smallest
        for first in range(0, len(names) - count + 1, count):
            hosts = tuple(names[first : first + count])
            network = _network_effect(model, [speeds.get(name) for name in hosts])
            found.append(Cluster(hosts, shape, memory, ranks, network))
    if not found and len(matched) > 1:
        problems.append(_unmatched(matched, hardware))
    return tuple(found), tuple(problems)


def _network_effect(model: Model, speeds: Sequence[float | None]) -> str:
    """How the speed of the hosts' network decided on wide expert parallel; "" for a model without
    experts."""
    if not model.experts:
        return ""
    stated = [speed for speed in speeds if speed is not None]
    slowest = min(stated) if len(stated) == len(speeds) else None
    if slowest is not None and slowest >= WIDE_GBIT_S:
        return f"by {slowest:g} Gbit/s between them"
    known = "a network not stated" if slowest is None else f"{slowest:g} Gbit/s"
    return f"by {known}: from network_gbit_s {WIDE_GBIT_S} on, experts may go over all GPUs"


def describe_cluster(cluster: Cluster) -> str:
    """A description of a cluster."""
    how = "tensor parallel inside each host, the pipeline across them"
    if cluster.shape.pipeline_parallel < len(cluster.hosts):
        how = "tensor parallel across the hosts"
    if cluster.data_parallel_size > 1:
        how = f"{cluster.data_parallel_size} data-parallel ranks, experts over all GPUs"
    how += f", {cluster.network}" if cluster.network else ""
    return (
        f"{', '.join(cluster.hosts)} together: {cluster.shape}, {how}; "
        f"{cluster.memory.weights_gib:.1f} GiB of weights and "
        f"{cluster.memory.kv_cache_gib:.1f} GiB of KV cache on a GPU"
    )


def not_deployed_yet(plan: Plan) -> str:
    """That a plan's clusters are planned alone, and what can be deployed today."""
    return (
        f"{plan.model} needs wide expert parallel over several hosts, which is planned, not "
        f"deployed yet ({'; '.join(map(describe_cluster, plan.clusters))}); deploy it today on a "
        f"host that holds it alone, or serve a smaller model"
    )


def smallest_cluster(
    engine: Planning,
    model: Model,
    params: EngineParams,
    machine: Hardware,
    hosts: int,
    wide: bool = False,
) -> tuple[int, int, Shape, MemorySum] | None:
    """The smallest cluster of such hosts: its number of hosts, data-parallel ranks, shape and
    memory; `wide`: their network is fast enough for wide expert parallel."""
    if not machine.matched or not machine.gpus or machine.gpus[0].mig_profile:
        return None
    for count in range(2, min(hosts, MAX_HOSTS) + 1):
        for shape, ranks in _candidate_shapes(engine, model, len(machine.gpus), count, wide):
            # Each data-parallel rank has its share of the requests and its own KV cache.
            own = replace(
                params,
                data_parallel_size=ranks,
                min_concurrency=math.ceil(params.min_concurrency / ranks),
            )
            memory = engine.memory(model, (gpu_memory(machine.gpus[0]),), shape, own)
            if memory.fits:
                return count, ranks, shape, memory
    return None


def _candidate_shapes(
    engine: Planning, model: Model, gpus: int, hosts: int, wide: bool
) -> Iterator[tuple[Shape, int]]:
    """Valid shapes with their data-parallel ranks; wide expert parallel first if links are fast."""
    for tensor in range(1, gpus + 1):
        ranks = gpus * hosts // tensor
        shape = Shape(tensor, 1, True)
        if (
            wide
            and model.experts
            and gpus % tensor == 0
            and not _wide_problems(model, tensor, ranks)
        ):
            yield shape, ranks
    for shape_option in split_shapes(gpus, hosts):
        shape, objections = engine.check_shape(model, shape_option)
        if not objections:
            yield shape, 1


def _wide_problems(model: Model, tensor: int, ranks: int) -> tuple[str, ...]:
    return shape_problems(model, tensor, expert_parallel=True, data_parallel_size=ranks)


def split_shapes(gpus: int, hosts: int) -> Iterator[Shape]:
    """Tensor parallel inside each host and the pipeline across them, most tensor parallel first."""
    for tensor in range(gpus, 0, -1):
        if gpus % tensor == 0:
            yield Shape(tensor, gpus // tensor * hosts)


def _hosts_by_gpus(hardware: Mapping[str, Hardware]) -> list[list[str]]:
    """The names of hosts grouped by equal GPUs, sorted: the order of hosts does not matter."""
    groups: dict[tuple, list[str]] = {}
    for name in sorted(hardware):
        key = tuple((gpu.name, gpu.memory_mib) for gpu in hardware[name].gpus)
        groups.setdefault(key, []).append(name)
    return sorted(groups.values())


def _too_few(names: Sequence[str], machine: Hardware) -> str:
    what = "they are too small together" if machine.matched else "mixed GPUs do not work together"
    return f"{len(names)} hosts of {summary(machine.gpus)} each are no cluster for it: {what}"


def _unmatched(matched: Sequence[Sequence[str]], hardware: Mapping[str, Hardware]) -> str:
    kinds = "; ".join(
        f"{', '.join(names)}: {summary(hardware[names[0]].gpus)}" for names in matched
    )
    return f"hosts of a cluster must be alike, and these are not: {kinds}"
