"""The planner of one host: which replicas of a service run on which of its GPUs. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from roles.engine.engine import engine
from roles.engine.params import gpu_memory
from roles.hardware import Gpu, Hardware, p2p_fault
from roles.plan import HostPlan, Replica
from roles.topology import messages
from roles.topology.candidates import Candidate
from roles.topology.findings import (
    gpu_warnings,
    impossible_links,
    links_summary,
    slow_links,
    without_p2p,
)
from roles.topology.serving import Serving, able_gpus, serve, speed
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
