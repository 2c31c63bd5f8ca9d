"""Replicas over cards of different kinds, split by whole layers, for engines that can do this."""

from collections.abc import Sequence
from dataclasses import dataclass

from roles.engine.engine import ENGINES, engine
from roles.engine.params import gpu_memory
from roles.engine.planning import Planning
from roles.hardware import Gpu, Hardware
from roles.plan import MemorySum, Shape
from roles.topology.candidates import Candidate, placed
from roles.topology.rates import group_link
from roles.topology.spec import ServiceSpec


@dataclass(frozen=True)
class MixedReplica:
    """A replica over cards of different kinds, with the memory of each card."""

    kind: str
    candidate: Candidate
    cards: tuple[MemorySum, ...]

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """Its cards."""
        return self.candidate.groups[0]


def mixed_replicas(
    spec: ServiceSpec, gpus: Sequence[Gpu], hardware: Hardware
) -> tuple[list[MixedReplica], str]:
    """Replicas over unused cards, each over as few of the largest cards as possible.

    If there is none, also the reason why not even all cards together hold the model."""
    found: list[MixedReplica] = []
    left = [gpu for gpu in gpus if not gpu.mig_profile]
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
    whole = [gpu for gpu in gpus if not gpu.mig_profile]
    others = [one for one in ENGINES.values() if one.mixed_cards and one.kind != spec.engine]
    if len(whole) < 2 or not others:
        return None
    return _replica_over(others[0], spec, tuple(whole), hardware)


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
    return MixedReplica(engine.kind, Candidate(shape, (group,), memory, link), cards)


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
