"""The planner: from models, hardware and services to a plan. Pure: no host, clock or
environment."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from roles.engine.engine import engine
from roles.engine.params import gpu_memory
from roles.hardware import Gpu, Hardware, p2p_fault
from roles.plan import Cluster, HostPlan, Plan, Replica
from roles.topology import messages
from roles.topology.allocation import allocate
from roles.topology.candidates import Candidate
from roles.topology.clusters import clusters
from roles.topology.findings import (
    gpu_warnings,
    impossible_links,
    links_summary,
    slow_links,
    without_p2p,
)
from roles.topology.groups import declared_clusters, with_replicas
from roles.topology.serving import Serving, able_gpus, matched, refused_card, serve, speed
from roles.topology.settings import ServiceSettings
from roles.topology.spec import ServiceSpec

# A weight is a replica's capacity relative to the weakest one; larger values make no difference.
MAX_WEIGHT = 20


def plan_services(
    services: Sequence[ServiceSettings],
    hardware: Mapping[str, Hardware],
    ports: Mapping[str, Sequence[int]] | None = None,
    prices: Mapping[str, float] | None = None,
    pinned: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
    network_gbit_s: Mapping[str, float] | None = None,
) -> tuple[Plan, ...]:
    """The plan of each service on its part of every host; see `allocate` and `plan_fleet`.

    `pinned` maps hosts to the GPUs of services. A host's price is divided by GPUs. Raises
    ValueError with a line for each host with invalid pins or ports.
    """
    if len(services) == 1 and not pinned:
        return (plan_fleet(services[0], hardware, ports, prices, network_gbit_s),)
    parts, problems = _parts(services, hardware, ports or {}, pinned or {})
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(
        plan_fleet(
            service,
            {host: parts[host][service.name] for host in hardware},
            prices={
                host: price * len(parts[host][service.name].gpus) / len(hardware[host].gpus)
                for host, price in (prices or {}).items()
            },
            network_gbit_s=network_gbit_s,
            place=f"services[{number}]",
        )
        for number, service in enumerate(services)
    )


def _parts(
    services: Sequence[ServiceSettings],
    hardware: Mapping[str, Hardware],
    ports: Mapping[str, Sequence[int]],
    pinned: Mapping[str, Mapping[str, Sequence[int]]],
) -> tuple[dict[str, dict[str, Hardware]], list[str]]:
    """Each service's part of each host, and the problems with pins and ports."""
    parts: dict[str, dict[str, Hardware]] = {}
    problems = [
        f"hosts[{host}].ports: are for one service; set first_port of each service instead"
        for host in ports
    ]
    shares = {service.name: service.share for service in services}
    for host, machine in hardware.items():
        try:
            parts[host] = allocate(machine, shares, pinned.get(host))
        except ValueError as error:
            problems.append(f"hosts[{host}].pinned_gpus: {error}")
    return parts, problems


def plan_fleet(
    service: ServiceSettings,
    hardware: Mapping[str, Hardware],
    ports: Mapping[str, Sequence[int]] | None = None,
    prices: Mapping[str, float] | None = None,
    network_gbit_s: Mapping[str, float] | None = None,
    advise: bool = True,
    place: str = "services[0]",
) -> Plan:
    """Plan one service over all hosts that have GPUs, in the order of `hardware`.

    Hosts of its `members` run one replica a group; where no host holds the model alone, the fewest
    equal ones do that do together.

    The expected load is shared by the hosts that can serve; see `load_shares`. `ports` are a host's
    ports in the order of its replicas; by default they count up from `first_port`. `prices` are the
    hosts' monthly prices, `network_gbit_s` the hosts' network speeds. Without `advise` no remedies
    and no usual advice are looked at, which takes less time. Raises ValueError with a line for each
    host whose `ports` are too few or too many, and for each group that cannot serve; `place` is the
    service's in the inventory.
    """
    service, reason = _with_engine(service)
    hardware = {host: plannable(machine) for host, machine in hardware.items()}
    spec, ports = spec_of(service), ports or {}
    joined = declared_clusters(service, spec, hardware, place)
    members = {host for cluster in joined for host in cluster.hosts}
    alone = {host: machine for host, machine in hardware.items() if host not in members}
    hosts = _hosts(service, alone, ports, prices or {}, advise)
    found, problems = joined, tuple[str, ...]()
    if not joined and len(hosts) > 1 and not any(host.replicas for host in hosts):
        able = {host: machine for host, machine in hardware.items() if _runs_on(spec, machine)}
        found, problems = _found_clusters(service, able, network_gbit_s)
        joined = tuple(one for one in found if one.data_parallel_size == 1)
        # Wide expert parallel is not launched: the same hosts serve without it.
        joined = joined or _found_clusters(service, able, None)[0]
        joined = joined[:1] if service.single_endpoint else joined
    hosts = with_replicas(service, hosts, joined, hardware, ports)
    first = (reason,) if reason else ()
    hosts = [replace(host, reasons=(*first, *host.reasons)) for host in hosts]
    if service.single_endpoint:
        hosts = _single_endpoint_only(hosts)
    return Plan(
        service.name,
        service.model.id,
        _with_relative_weights(hosts),
        clusters=found,
        cluster_problems=problems,
        load=service.load,
        settings=service.planned_settings,
    )


def _found_clusters(
    service: ServiceSettings,
    able: Mapping[str, Hardware],
    network_gbit_s: Mapping[str, float] | None,
) -> tuple[tuple[Cluster, ...], tuple[str, ...]]:
    own = engine(service.kind)
    return clusters(own, service.planned_model, service.engine_params, able, network_gbit_s)


def _runs_on(spec: ServiceSpec, hardware: Hardware) -> bool:
    """Whether the engine runs on every card of a host at all."""
    return not any(refused_card(spec, gpus[0]) for gpus in matched(hardware.gpus))


def _with_engine(service: ServiceSettings) -> tuple[ServiceSettings, str]:
    """The service with its engine set, and the reason if the plan chose it."""
    reason = service.engine_reason
    return service.with_engine(service.kind, reason), reason


def _hosts(
    service: ServiceSettings,
    hardware: Mapping[str, Hardware],
    ports: Mapping[str, Sequence[int]],
    prices: Mapping[str, float],
    advise: bool,
) -> list[HostPlan]:
    """The plan of each host; one ValueError with the port problems of all hosts.

    Hosts that differ only in their names are planned once.
    """
    shares = load_shares(service, hardware)
    planned: dict[Hashable, HostPlan] = {}
    hosts: list[HostPlan] = []
    problems: list[str] = []
    for host, machine in hardware.items():
        own_ports, price = ports.get(host), prices.get(host)
        key = machine, own_ports and tuple(own_ports), shares[host], price
        try:
            if key not in planned:
                planned[key] = plan_host(
                    service, host, machine, own_ports, shares[host], price, advise
                )
        except ValueError as error:
            problems.append(f"hosts[{host}].ports: {error}")
        else:
            hosts.append(_renamed_to_host(planned[key], host))
    if problems:
        raise ValueError("\n".join(problems))
    return hosts


def _renamed_to_host(plan: HostPlan, host: str) -> HostPlan:
    """The plan of an equal host, under this host's name."""
    if plan.host == host:
        return plan
    replicas = tuple(replace(replica, host=host) for replica in plan.replicas)
    return replace(plan, host=host, replicas=replicas)


def plan_host(
    service: ServiceSettings,
    host: str,
    hardware: Hardware,
    ports: Sequence[int] | None = None,
    share: float = 1.0,
    price: float | None = None,
    advise: bool = True,
) -> HostPlan:
    """Plan one host: on each set of equal cards the best shape, with as many replicas as fit.

    `share` is this host's fraction of the service's load, `price` its monthly price. Raises
    ValueError if the number of `ports` is not that of the replicas.
    """
    spec = replace(spec_of(service, share, price), advise=advise)
    return host_plan(service, spec, host, hardware, ports)


def host_plan(
    service: ServiceSettings,
    spec: ServiceSpec,
    host: str,
    hardware: Hardware,
    ports: Sequence[int] | None = None,
) -> HostPlan:
    """The plan of one host by a service's spec there; see `plan_host`."""
    serving = serve(spec, plannable(hardware))
    replicas = _replicas(service, host, serving, ports, hardware)
    reasons = serving.reasons + without_p2p(replicas, hardware) + slow_links(serving, hardware)
    reasons += messages.cost(serving.chosen, spec.price_per_month)
    reasons += (*service.recipe_notes, *service.notes) if replicas else ()
    spare = tuple(gpu.index for gpu in hardware.gpus if gpu.index not in serving.used)
    warnings = gpu_warnings(hardware.gpus, replicas, spare) + impossible_links(hardware)
    warnings += serving.warnings
    warnings += service.doubts
    return HostPlan(
        host,
        hardware.gpus,
        replicas,
        spare,
        reasons,
        warnings,
        serving.rejected,
        serving.remedies,
        serving.problems,
        links_summary(hardware),
    )


def plannable(hardware: Hardware) -> Hardware:
    """The hardware without fields that no plan depends on, so that equal hosts are planned once."""
    gpus = tuple(
        gpu
        if gpu.pci_address is None and gpu.pci_device_id is None
        else replace(gpu, pci_address=None, pci_device_id=None)
        for gpu in hardware.gpus
    )
    return replace(hardware, gpus=gpus, driver_version=None)


def spec_of(
    service: ServiceSettings, share: float = 1.0, price: float | None = None
) -> ServiceSpec:
    """The spec of a service on a host with a share of its load and a monthly price."""
    load = service.load
    if load is not None:
        load = replace(load, concurrency=max(load.concurrency * share, 1e-6))
    return ServiceSpec(
        service.planned_model,
        service.engine_params,
        service.shape_objective,
        load,
        service.single_endpoint,
        price,
        service.dtype,
        # `roles.driver.problems_of_declaration` compares the cards with the needs of each host's
        # own build.
        engine(service.kind).min_capability_of_any_build,
        service.kind,
        arguments=tuple(sorted(service.arguments.items())),
    )


def load_shares(service: ServiceSettings, hardware: Mapping[str, Hardware]) -> dict[str, float]:
    """Each host's part of the load: 0 where it cannot serve, all of it for a single endpoint.

    The others share it in proportion to the memory bandwidth of the GPUs with which they can serve,
    as balancers weigh replicas. Without a load every host has all of it, so that equal hosts are
    planned once.
    """
    if service.load is None or service.single_endpoint:
        return dict.fromkeys(hardware, 1.0)
    spec = spec_of(service)
    speeds = {host: speed(able_gpus(spec, machine)) for host, machine in hardware.items()}
    # Sorted, so that the float sum does not depend on the order of hosts.
    total = sum(sorted(speeds.values())) or 1.0
    return {host: speed / total for host, speed in speeds.items()}


def _replicas(
    service: ServiceSettings,
    host: str,
    serving: Serving,
    ports: Sequence[int] | None,
    hardware: Hardware,
) -> tuple[Replica, ...]:
    groups = [(one, group) for one in serving.chosen for group in one.groups]
    if ports is not None and groups and len(ports) != len(groups):
        raise ValueError(f"{len(ports)} ports for {len(groups)} replicas; name one for each")
    return tuple(
        _replica(service, host, number, one, group, ports, hardware)
        for number, (one, group) in enumerate(groups)
    )


def _replica(
    service: ServiceSettings,
    host: str,
    number: int,
    candidate: Candidate,
    gpus: tuple[Gpu, ...],
    ports: Sequence[int] | None,
    hardware: Hardware,
) -> Replica:
    indexes = tuple(gpu.index for gpu in gpus)
    return Replica(
        name=f"{service.name}-{number}",
        number=number,
        host=host,
        service=service.name,
        gpus=indexes,
        shape=candidate.shape,
        port=ports[number] if ports is not None else service.first_port + number,
        max_model_len=service.max_model_len,
        gpu_memory_utilization=_utilization(service, candidate, gpus[0]),
        memory=candidate.memory,
        max_num_seqs=candidate.changed.max_num_seqs,
        max_num_batched_tokens=candidate.changed.max_num_batched_tokens,
        enforce_eager=candidate.changed.enforce_eager,
        dtype=engine(service.kind).planned_dtype(service.model, service.dtype, gpus[0]),
        weight=max(1, round(speed(gpus, candidate.shape))),
        expected=candidate.expected,
        p2p=p2p_fault(hardware.interconnect, indexes) is None,
        engine=service.kind,
    )


def _utilization(service: ServiceSettings, candidate: Candidate, gpu: Gpu) -> float:
    """The share of a GPU's memory: the plan's or the service's, else the engine's own."""
    params = candidate.changed.applied(service.engine_params)
    own = engine(service.kind)
    return (
        params.utilization
        or own.utilization(service.planned_model, gpu_memory(gpu), candidate.shape, params)
        or service.gpu_memory_utilization
    )


def _with_relative_weights(hosts: Sequence[HostPlan]) -> tuple[HostPlan, ...]:
    """The hosts, with weights of replicas relative to the weakest of the fleet, as small
    integers."""
    speeds = [replica.weight for host in hosts for replica in host.replicas]
    weakest = min(speeds, default=1)

    def with_relative_weight(replica: Replica) -> Replica:
        weight = min(MAX_WEIGHT, max(1, round(replica.weight / weakest)))
        return replica if weight == replica.weight else replace(replica, weight=weight)

    return tuple(
        replace(host, replicas=tuple(map(with_relative_weight, host.replicas))) for host in hosts
    )


def _single_endpoint_only(hosts: Sequence[HostPlan]) -> list[HostPlan]:
    """The plan with a single endpoint: the host whose replica holds most tokens, the first by
    name of equal ones."""
    able = [host for host in hosts if host.replicas]
    if not able:
        return list(hosts)
    first = sorted(able, key=lambda host: (-host.replicas[0].memory.kv_tokens, host.host))[0]
    return [
        host
        if host is first or not host.replicas or len(host.replicas[0].hosts) > 1
        else replace(
            host,
            replicas=(),
            spare_gpus=tuple(gpu.index for gpu in host.gpus),
            warnings=(f"this host serves nothing: {first.host} is the single endpoint",),
        )
        for host in hosts
    ]
