"""Replicas over several hosts: declared groups, and what their hosts are planned to run. Pure."""

from collections.abc import Mapping, Sequence

from roles.engine.engine import engine
from roles.engine.params import gpu_memory
from roles.hardware import Hardware, p2p_fault, summary
from roles.plan import Cluster, HostPlan, MemorySum, Replica, Shape
from roles.topology.clusters import describe_cluster, split_shapes
from roles.topology.findings import links_summary
from roles.topology.service_fields import GroupSettings
from roles.topology.serving import refused_card, speed
from roles.topology.settings import ServiceSettings
from roles.topology.spec import ServiceSpec


def declared_clusters(
    service: ServiceSettings, spec: ServiceSpec, hardware: Mapping[str, Hardware], place: str
) -> tuple[Cluster, ...]:
    """The clusters of a service's declared `members`; ValueError with a line for each that cannot
    hold the model, or whose hosts differ. `place` is the service's in the inventory."""
    found: list[Cluster] = []
    problems: list[str] = []
    for number, group in enumerate(service.members):
        cluster, problem = _declared(spec, group, hardware)
        found += [cluster] if cluster else []
        problems += [f"{place}.members[{number}]{problem}"] if problem else []
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(found)


def _declared(
    spec: ServiceSpec, group: GroupSettings, hardware: Mapping[str, Hardware]
) -> tuple[Cluster | None, str]:
    """The cluster of a declared group, or what is wrong with it after its place."""
    for number, name in enumerate(group.hosts):
        if name not in hardware:
            return None, f".hosts[{number}]: {name} has no GPUs in this plan; name a GPU host"
    machines = [hardware[name] for name in group.hosts]
    kinds = [tuple((gpu.name, gpu.memory_mib) for gpu in one.gpus) for one in machines]
    first = machines[0]
    if len(set(kinds)) > 1 or not first.matched:
        each = "; ".join(
            f"{name}: {summary(one.gpus) or 'none'}"
            for name, one in zip(group.hosts, machines, strict=True)
        )
        return None, f": its hosts need the same number of the same GPUs, and have {each}"
    if not first.gpus or first.gpus[0].mig_profile:
        return None, ": slices of GPUs, and hosts without any, do not work together"
    if refused := refused_card(spec, first.gpus[0]):
        return None, f": {refused}"
    return _fitting(spec, group, first)


def _fitting(
    spec: ServiceSpec, group: GroupSettings, machine: Hardware
) -> tuple[Cluster | None, str]:
    own, gpus, count = engine(spec.engine), len(machine.gpus), len(group.hosts)
    tensor, whole = group.tensor_parallel_size, gpus * count
    if tensor is not None and whole % tensor:
        return None, f".tensor_parallel_size: {tensor} does not divide its {whole} GPUs"
    shapes = [Shape(tensor, whole // tensor)] if tensor else split_shapes(gpus, count)
    why = ""
    for option in shapes:
        shape, objections = own.check_shape(spec.model, option)
        if objections:
            why = why or f"{shape}: {'; '.join(objections)}"
            continue
        memory = own.memory(spec.model, (gpu_memory(machine.gpus[0]),), shape, spec.params)
        if memory.fits:
            return Cluster(tuple(group.hosts), shape, memory), ""
        why = why or f"{shape}: {_short(memory)}"
    return None, f": its hosts do not hold {spec.model.id or 'the model'} together ({why})"


def _short(memory: MemorySum) -> str:
    return memory.reason or (
        f"{memory.kv_cache_gib:.1f} GiB are left for KV cache, and {memory.kv_needed_gib:.1f} GiB "
        "are needed"
    )


def with_replicas(
    service: ServiceSettings,
    hosts: Sequence[HostPlan],
    clusters: Sequence[Cluster],
    hardware: Mapping[str, Hardware],
    ports: Mapping[str, Sequence[int]],
) -> list[HostPlan]:
    """The hosts' plans with a replica over the hosts of each cluster; ValueError with a line for
    each head whose `ports` are not one."""
    problems = [
        f"hosts[{one.hosts[0]}].ports: {len(given)} ports for 1 replica; name one for each"
        for one in clusters
        if len(given := ports.get(one.hosts[0], (0,))) != 1
    ]
    if problems:
        raise ValueError("\n".join(problems))
    by_host = {plan.host: plan for plan in hosts}
    for cluster in clusters:
        replica = _replica(service, cluster, hardware, ports.get(cluster.hosts[0]))
        for host in cluster.hosts:
            by_host[host] = _host_plan(service, by_host.get(host), host, hardware[host], replica)
    # A plan has its hosts in the order of the inventory.
    return [by_host[host] for host in hardware if host in by_host]


def _host_plan(
    service: ServiceSettings,
    before: HostPlan | None,
    host: str,
    machine: Hardware,
    replica: Replica,
) -> HostPlan:
    """The plan of a host that is one of a replica's."""
    others = ", ".join(name for name in replica.hosts if name != host)
    rank = replica.hosts.index(host)
    role = "it answers" if rank == 0 else f"{replica.host} answers"
    cluster = Cluster(replica.hosts, replica.shape, replica.memory)
    reasons = (
        f"with {others} it is one replica, rank {rank} of {len(replica.hosts)}, and {role}: "
        f"{describe_cluster(cluster)}",
        *(f"not alone: {problem}" for problem in (before.problems if before else ())),
        *((*service.recipe_notes, *service.notes) if rank == 0 else ()),
    )
    own = replica.part_on(host)
    return HostPlan(
        host=host,
        gpus=machine.gpus,
        replicas=(own,) if rank == 0 else (),
        spare_gpus=(),
        reasons=reasons,
        warnings=service.doubts,
        rejected=before.rejected if before else (),
        links=links_summary(machine),
        parts=(own,) if rank else (),
    )


def _replica(
    service: ServiceSettings,
    cluster: Cluster,
    hardware: Mapping[str, Hardware],
    ports: Sequence[int] | None,
) -> Replica:
    own, head = engine(service.kind), cluster.hosts[0]
    members = tuple(
        (host, tuple(gpu.index for gpu in hardware[host].gpus)) for host in cluster.hosts
    )
    gpu = hardware[head].gpus[0]
    params = service.engine_params
    utilization = params.utilization or own.utilization(
        service.planned_model, gpu_memory(gpu), cluster.shape, params
    )
    every = [gpu for host in cluster.hosts for gpu in hardware[host].gpus]
    return Replica(
        name=f"{service.name}-0",
        number=0,
        host=head,
        service=service.name,
        gpus=members[0][1],
        shape=cluster.shape,
        port=ports[0] if ports else service.first_port,
        max_model_len=service.max_model_len,
        gpu_memory_utilization=utilization or service.gpu_memory_utilization,
        memory=cluster.memory,
        engine=service.kind,
        dtype=own.planned_dtype(service.model, service.dtype, gpu),
        weight=max(1, round(speed(every))),
        p2p=all(
            p2p_fault(hardware[host].interconnect, indexes) is None for host, indexes in members
        ),
        members=members,
        executor=service.executor,
    )
