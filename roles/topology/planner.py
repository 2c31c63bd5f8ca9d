"""The planner: (model, hardware, service) in, plan out. Pure: no host, clock or environment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from roles.hardware import Gpu, Hardware, find_card
from roles.topology.memory import memory_sum
from roles.topology.plan import HostPlan, MemorySum, Plan, Replica, Shape
from roles.topology.settings import ServiceSettings
from roles.topology.shapes import objection, shapes
from roles.topology.support import unsupported

_OVER = {"nvlink": " over NVLink", "pcie": " over PCIe", None: ""}


@dataclass
class _Choice:
    """The shape for a set of matched GPUs, or None, with the reasons that led to it."""

    gpus: tuple[Gpu, ...]
    shape: Shape | None = None
    memory: MemorySum | None = None
    reasons: list[str] = field(default_factory=list)


def plan_fleet(
    service: ServiceSettings,
    hardware: Mapping[str, Hardware],
    ports: Mapping[str, Sequence[int]] | None = None,
) -> Plan:
    """Plan one service over all hosts that have GPUs, in the order of `hardware`.

    `ports` says a host's ports, first replica first; without it they count up from `first_port`.
    Raises ValueError where `ports` names too few or too many, with a line for each such host.
    """
    hosts: list[HostPlan] = []
    problems: list[str] = []
    for host, machine in hardware.items():
        try:
            hosts.append(plan_host(service, host, machine, (ports or {}).get(host)))
        except ValueError as error:
            problems.append(f"hosts[{host}].ports: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return Plan(service.name, service.model.name, tuple(hosts))


def plan_host(
    service: ServiceSettings, host: str, hardware: Hardware, ports: Sequence[int] | None = None
) -> HostPlan:
    """Plan one host: on each set of matched cards the first shape that fits, as often as it does.

    Raises ValueError where `ports` does not name as many ports as the host has replicas, if any.
    """
    choices = [_choose(service, cards, hardware.links) for cards in _matched(hardware.gpus)]
    groups = [(choice, group) for choice in choices for group in _groups(choice)]
    if ports is not None and groups and len(ports) != len(groups):
        raise ValueError(f"{len(ports)} ports for {len(groups)} replicas; name one for each")
    replicas = tuple(
        _replica(service, host, number, choice, group, ports)
        for number, (choice, group) in enumerate(groups)
    )
    used = {index for replica in replicas for index in replica.gpus}
    spare = tuple(gpu.index for gpu in hardware.gpus if gpu.index not in used)
    reasons = tuple(reason for choice in choices for reason in choice.reasons)
    warnings = _warnings(hardware.gpus, replicas, spare)
    return HostPlan(host, hardware.gpus, replicas, spare, reasons, warnings)


def _matched(gpus: tuple[Gpu, ...]) -> list[tuple[Gpu, ...]]:
    """Cards of one name and size together: tensor parallel needs equal ones."""

    def kind(gpu: Gpu) -> tuple[str, int]:
        return gpu.name, gpu.memory_mib

    groups = [tuple(group) for _, group in groupby(sorted(gpus, key=kind), key=kind)]
    return sorted(groups, key=lambda group: group[0].index)


def _choose(service: ServiceSettings, gpus: tuple[Gpu, ...], links: str | None) -> _Choice:
    model, choice = service.model, _Choice(gpus)
    if refused := unsupported(service, gpus[0]):
        choice.reasons.append(refused)
        return choice
    for shape in shapes(len(gpus)):
        if objected := objection(model, shape):
            choice.reasons.append(f"{shape} is not possible: {objected}")
            continue
        memory = memory_sum(model, gpus[0], shape, service.asked)
        if memory.fits:
            choice.shape, choice.memory = shape, memory
            choice.reasons.append(_why(service, gpus, shape, memory, _OVER[links]))
            return choice
        choice.reasons.append(_why_not(service, gpus[0], shape, memory))
    choice.reasons.append(_remedy(service, gpus))
    return choice


def _groups(choice: _Choice) -> list[tuple[Gpu, ...]]:
    if choice.shape is None:
        return []
    size = choice.shape.gpus
    return [choice.gpus[i : i + size] for i in range(0, len(choice.gpus) - size + 1, size)]


def _replica(
    service: ServiceSettings,
    host: str,
    number: int,
    choice: _Choice,
    gpus: tuple[Gpu, ...],
    ports: Sequence[int] | None,
) -> Replica:
    assert choice.shape and choice.memory
    return Replica(
        name=f"{service.name}-{number}",
        number=number,
        host=host,
        service=service.name,
        gpus=tuple(gpu.index for gpu in gpus),
        shape=choice.shape,
        port=ports[number] if ports is not None else service.first_port + number,
        max_model_len=service.max_model_len,
        gpu_memory_utilization=service.gpu_memory_utilization,
        memory=choice.memory,
    )


def _why(
    service: ServiceSettings, gpus: tuple[Gpu, ...], shape: Shape, memory: MemorySum, over: str
) -> str:
    count = len(gpus) // shape.gpus
    gives = f"{count} replica{'s' if count > 1 else ''}"
    if shape.gpus == 1:
        split = f"the model fits one {gpus[0].name}"
    else:
        split = f"{shape}{over} is the smallest shape that fits {gpus[0].name}"
    return (
        f"{split}: {memory.kv_cache_gib:.1f} GiB of KV cache a GPU, "
        f"{memory.kv_needed_gib:.1f} needed for {service.min_concurrency} requests of "
        f"{service.max_model_len} tokens; so {gives} of {shape}"
    )


def _why_not(service: ServiceSettings, gpu: Gpu, shape: Shape, memory: MemorySum) -> str:
    room = memory.total_gib - memory.driver_gib - memory.headroom_gib
    if memory.weights_gib > room:
        return (
            f"{shape} does not fit {gpu.name}: {memory.weights_gib:.1f} GiB of weights, "
            f"{room:.1f} GiB usable"
        )
    return (
        f"{shape} does not fit {gpu.name}: {max(memory.kv_cache_gib, 0):.1f} GiB are left for KV "
        f"cache, {memory.kv_needed_gib:.1f} needed for {service.min_concurrency} requests of "
        f"{service.max_model_len} tokens"
    )


def _remedy(service: ServiceSettings, gpus: tuple[Gpu, ...]) -> str:
    """What would make the model fit: fewer or shorter requests where that is enough, else GPUs."""
    # One GPU is a shape that nothing speaks against, so there is always one.
    possible = [shape for shape in shapes(len(gpus)) if not objection(service.model, shape)]
    tokens = max(
        memory_sum(service.model, gpus[0], shape, service.asked).kv_tokens for shape in possible
    )
    length = tokens // service.min_concurrency
    name = f"{len(gpus)}x {gpus[0].name}"
    if length >= 256:
        return (
            f"{service.model.name} does not fit {name} as asked; it would with max_model_len "
            f"{length // 16 * 16}, or a smaller min_concurrency"
        )
    return (
        f"{service.model.name} does not fit {name}; use more or larger GPUs, "
        f"or a smaller or quantised model"
    )


def _warnings(
    gpus: tuple[Gpu, ...], replicas: tuple[Replica, ...], spare: tuple[int, ...]
) -> tuple[str, ...]:
    unknown = [
        f"{name} is not in the table of cards: planned by its memory alone"
        for name in dict.fromkeys(gpu.name for gpu in gpus)
        if find_card(name) is None
    ]
    if not replicas:
        return ("this host serves nothing: the model does not run on its GPUs", *unknown)
    if spare:
        return (f"spare GPUs: {', '.join(map(str, spare))}", *unknown)
    return tuple(unknown)
