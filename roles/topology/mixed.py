"""Replicas over cards of different kinds, split by whole layers, for engines that can do this."""

from collections.abc import Sequence
from dataclasses import dataclass

from roles.engine.engine import ENGINES, engine
from roles.engine.params import gpu_memory
from roles.engine.planning import Planning
from roles.hardware import Gpu, Hardware, is_amd_gpu
from roles.plan import MemorySum, Shape
from roles.topology.candidates import Candidate, placed
from roles.topology.rates import group_link
from roles.topology.spec import ServiceSpec


@dataclass(frozen=True)
class MixedReplica:
    """A replica over cards of different kinds, with the memory of each card.

    `files` says which weight files its engine loads.
    """

    kind: str
    candidate: Candidate
    cards: tuple[MemorySum, ...]
    files: str

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """Its cards."""
        return self.candidate.groups[0]


def mixed_replicas(
    spec: ServiceSpec, gpus: Sequence[Gpu], hardware: Hardware
) -> tuple[list[MixedReplica], str]:
    """Replicas over unused cards, each over as few of the largest cards of a vendor as possible.

    If there is none, also the reason why not even all cards together hold the model."""
    parts = [_of_one_vendor(spec, part, hardware) for part in _by_vendor(gpus)]
    found = [replica for part, _ in parts for replica in part]
    return found, "" if found else "; ".join(problem for _, problem in parts if problem)


def _by_vendor(gpus: Sequence[Gpu]) -> list[tuple[Gpu, ...]]:
    """The whole cards of each vendor: an engine's build is for one of them."""
    whole = [gpu for gpu in gpus if not gpu.mig_profile]
    parts = (tuple(gpu for gpu in whole if is_amd_gpu(gpu) is amd) for amd in (False, True))
    return [part for part in parts if part]


def _of_one_vendor(
    spec: ServiceSpec, gpus: Sequence[Gpu], hardware: Hardware
) -> tuple[list[MixedReplica], str]:
    found: list[MixedReplica] = []
    left = list(gpus)
    while len(left) > 1:
        replica = _smallest(engine(spec.engine), spec, left, hardware)
        if replica is None:
            break
        found.append(replica)
        left = [gpu for gpu in left if gpu not in replica.gpus]
    return found, "" if found or len(left) < 2 else _too_small(spec, left)


def _too_small(spec: ServiceSpec, gpus: Sequence[Gpu]) -> str:
    own, memories = engine(spec.engine), tuple(map(gpu_memory, gpus))
    indexes = ", ".join(str(gpu.index) for gpu in gpus)
    shape, objections = own.check_shape(spec.model, Shape(1, len(gpus)))
    if objections:
        return f"GPUs {indexes} together are not possible: {objections[0]}"
    _, memory = placed(own, spec.model, memories, shape, spec.params)
    tight = f"of {memory.total_gib:.0f} GiB: {memory.reason}"
    return f"GPUs {indexes} together do not hold it by whole layers; on the one {tight}"


def alternative_engine(
    spec: ServiceSpec, gpus: Sequence[Gpu], hardware: Hardware
) -> MixedReplica | None:
    """A replica of another engine over mixed cards, if the service's engine cannot use them."""
    parts = [part for part in _by_vendor(gpus) if len(part) > 1]
    others = [one for one in ENGINES.values() if one.mixed_cards and one.kind != spec.engine]
    found = (_replica_over(one, spec, part, hardware) for one in others[:1] for part in parts)
    return next((one for one in found if one is not None), None)


def _smallest(
    engine: Planning, spec: ServiceSpec, gpus: Sequence[Gpu], hardware: Hardware
) -> MixedReplica | None:
    largest = sorted(gpus, key=lambda gpu: (-gpu_memory(gpu).usable_mib, gpu.index))
    for count in range(2, len(gpus) + 1):
        group = tuple(sorted(largest[:count], key=lambda gpu: gpu.index))
        found = _replica_over(engine, spec, group, hardware)
        if found is not None:
            return found
    return None


def _replica_over(
    engine: Planning, spec: ServiceSpec, group: tuple[Gpu, ...], hardware: Hardware
) -> MixedReplica | None:
    """A replica over exactly these cards; None if it does not fit."""
    memories = tuple(map(gpu_memory, group))
    shape, objections = engine.check_shape(spec.model, Shape(1, len(group)))
    if objections:
        return None
    shape, memory = placed(engine, spec.model, memories, shape, spec.params)
    if not memory.fits:
        return None
    cards = engine.memories(spec.model, memories, shape, spec.params)
    link = group_link(group, hardware)
    candidate = Candidate(shape, (group,), memory, link)
    return MixedReplica(engine.kind, candidate, cards, engine.files_of(spec.model))


def describe_mixed(mixed: MixedReplica) -> str:
    """A description of a replica over mixed cards, with its split and each card's memory."""
    shape, name = mixed.candidate.shape, engine(mixed.kind).name
    parts = ",".join(f"{part:g}" for part in shape.tensor_split)
    cards = "; ".join(
        f"GPU {gpu.index} ({gpu.name}) holds {one.weights_gib:.1f} GiB of weights, "
        f"{one.kv_cache_gib:.1f} of KV cache and "
        f"{one.activations_gib + one.workspace_gib:.1f} of buffers, "
        f"{one.headroom_gib:.1f} stay free"
        for gpu, one in zip(mixed.gpus, mixed.cards, strict=True)
    )
    indexes = ", ".join(str(gpu.index) for gpu in mixed.gpus)
    return f"{name} over GPUs {indexes} by whole layers (--tensor-split {parts}): {cards}"
