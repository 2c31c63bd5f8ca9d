"""The planner: from models, hardware and services to a plan. Pure: no host, clock or
environment."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from roles.engine.engine import engine
from roles.hardware import Hardware
from roles.plan import Cluster, HostPlan, Plan, Replica
from roles.topology.allocation import allocate
from roles.topology.clusters import clusters
from roles.topology.groups import declared_clusters, with_replicas
from roles.topology.host_planner import load_shares, plan_host, plannable, spec_of
from roles.topology.serving import matched, refused_card
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
    hosts = [
        replace(host, reasons=(*_engine_reasons(service, host), *host.reasons)) for host in hosts
    ]
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


def _engine_reasons(service: ServiceSettings, host: HostPlan) -> list[str]:
    """Why the plan chose the engines of a host's cards; none where the service names its engine."""
    found = (own.engine_reason for own, _ in service.by_engine(host.gpus))
    return [reason for reason in found if reason]


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
