"""The planner of one host: which replicas of a service run on which of its GPUs. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from roles.engine.engine import engine
from roles.engine.params import gpu_memory
from roles.hardware import Gpu, Hardware, p2p_fault
from roles.plan import HostPlan, Replica
from roles.topology import messages
from roles.topology.allocation import part_of
from roles.topology.candidates import Candidate
from roles.topology.findings import (
    gpu_warnings,
    impossible_links,
    links_summary,
    slow_links,
    without_p2p,
)
from roles.topology.serving import Serving, able_gpus, merged, most_tokens, serve, speed
from roles.topology.settings import ServiceSettings
from roles.topology.spec import ServiceSpec


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
    parts = [
        _Part(own, replace(spec_of(own, share * fraction, price), advise=advise), gpus)
        for own, gpus, fraction in _fractions(service, hardware)
    ]
    return _host_plan(parts, host, hardware, ports)


def host_plan(
    service: ServiceSettings,
    spec: ServiceSpec,
    host: str,
    hardware: Hardware,
    ports: Sequence[int] | None = None,
) -> HostPlan:
    """The plan of one host by a service's spec there; see `plan_host`."""
    return _host_plan([_Part(service, spec, hardware)], host, hardware, ports)


@dataclass(frozen=True)
class _Part:
    """The cards of a host that one engine serves; the service and its spec are that engine's."""

    service: ServiceSettings
    spec: ServiceSpec
    hardware: Hardware


def _fractions(
    service: ServiceSettings, hardware: Hardware
) -> list[tuple[ServiceSettings, Hardware, float]]:
    """The service as each engine serves it, that one's part of a host, and its fraction of the
    host's load: they share it as hosts do."""
    found = by_engine(service, hardware)
    if len(found) == 1 or service.load is None or service.single_endpoint:
        return [(own, part, 1.0) for own, part in found]
    speeds = [_able_speed(own, part) for own, part in found]
    total = sum(speeds) or 1.0
    return [(own, part, speed / total) for (own, part), speed in zip(found, speeds, strict=True)]


def by_engine(
    service: ServiceSettings, hardware: Hardware
) -> tuple[tuple[ServiceSettings, Hardware], ...]:
    """The service as each of its engines serves it on a host, with that one's part of the host."""
    found = service.by_engine(hardware.gpus)
    if len(found) == 1:
        return ((found[0][0], hardware),)
    return tuple((own, part_of(hardware, gpus)) for own, gpus in found)


def _host_plan(
    parts: Sequence[_Part], host: str, hardware: Hardware, ports: Sequence[int] | None
) -> HostPlan:
    servings = [serve(part.spec, plannable(part.hardware)) for part in parts]
    if parts[0].spec.single_endpoint:
        best = max(range(len(parts)), key=lambda number: most_tokens(servings[number]))
        parts, servings = [parts[best]], [servings[best]]
    replicas = _replicas(parts, host, servings, ports, hardware)
    serving = merged(servings)
    reasons = serving.reasons + without_p2p(replicas, hardware) + slow_links(serving, hardware)
    reasons += messages.cost(serving.chosen, parts[0].spec.price_per_month)
    able = [part.service for part, one in zip(parts, servings, strict=True) if one.chosen]
    notes = [text for own in able for text in (*own.recipe_notes, *own.notes)]
    spare = tuple(gpu.index for gpu in hardware.gpus if gpu.index not in serving.used)
    warnings = gpu_warnings(hardware.gpus, replicas, spare) + impossible_links(hardware)
    doubts = [text for part in parts for text in part.service.doubts]
    return HostPlan(
        host,
        hardware.gpus,
        replicas,
        spare,
        (*reasons, *dict.fromkeys(notes)),
        (*warnings, *dict.fromkeys((*serving.warnings, *doubts))),
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
    speeds = {
        host: sum(_able_speed(own, part) for own, part in by_engine(service, machine))
        for host, machine in hardware.items()
    }
    # Sorted, so that the float sum does not depend on the order of hosts.
    total = sum(sorted(speeds.values())) or 1.0
    return {host: speed / total for host, speed in speeds.items()}


def _able_speed(service: ServiceSettings, hardware: Hardware) -> float:
    """The memory bandwidth of the GPUs of a host with which the service's engine can serve."""
    return speed(able_gpus(spec_of(service), hardware))


def _replicas(
    parts: Sequence[_Part],
    host: str,
    servings: Sequence[Serving],
    ports: Sequence[int] | None,
    hardware: Hardware,
) -> tuple[Replica, ...]:
    groups = [
        (part.service, one, group)
        for part, serving in zip(parts, servings, strict=True)
        for one in serving.chosen
        for group in one.groups
    ]
    if ports is not None and groups and len(ports) != len(groups):
        raise ValueError(f"{len(ports)} ports for {len(groups)} replicas; name one for each")
    return tuple(
        _replica(service, host, number, one, group, ports, hardware)
        for number, (service, one, group) in enumerate(groups)
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
