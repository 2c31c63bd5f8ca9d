"""Which GPUs of a host work together: near ones first, over NVLink and inside a NUMA node."""

from collections.abc import Callable, Sequence

from roles.hardware import Gpu, Hardware, link_slowness

Distance = Callable[[Gpu, Gpu], tuple[int, int]]


def groups(gpus: Sequence[Gpu], size: int, hardware: Hardware) -> list[tuple[Gpu, ...]]:
    """As many groups of `size` GPUs as there are, of those that are nearest to each other.

    Groups whose every pair is linked best are formed first, then those over the next slower kind
    of link, so that what must cross a NUMA node or leave an NVLink island is as little as can be.
    """
    if size == 1:
        return [(gpu,) for gpu in gpus]
    distance = _distance(hardware)
    limits = sorted({distance(a, b) for a in gpus for b in gpus if a.index < b.index})
    left, found = list(gpus), []
    for limit in limits:
        for seed in gpus:
            if len(left) < size:
                break
            group = _grown(seed, left, size, limit, distance) if seed in left else None
            if group:
                found.append(group)
                left = [gpu for gpu in left if gpu not in group]
    return sorted(found, key=lambda group: group[0].index)


def _grown(
    seed: Gpu, left: Sequence[Gpu], size: int, limit: tuple[int, int], distance: Distance
) -> tuple[Gpu, ...] | None:
    """The seed with the nearest GPUs, none farther from another than `limit`."""
    group = [seed]
    # How far each GPU that may still join is from the farthest member.
    near = {gpu: distance(seed, gpu) for gpu in left if gpu is not seed}
    while len(group) < size:
        near = {gpu: far for gpu, far in near.items() if far <= limit}
        if len(group) + len(near) < size:
            return None
        newest = min(near, key=lambda gpu: (near[gpu], gpu.index))
        group.append(newest)
        del near[newest]
        near = {gpu: max(far, distance(newest, gpu)) for gpu, far in near.items()}
    return tuple(sorted(group, key=lambda gpu: gpu.index))


def _distance(hardware: Hardware) -> Distance:
    """How far two GPUs are apart: by their link, and by their NUMA nodes."""
    labels = {(i, j): label for i, j, label in hardware.links or ()}

    def distance(a: Gpu, b: Gpu) -> tuple[int, int]:
        label = labels.get((min(a.index, b.index), max(a.index, b.index)))
        apart = a.numa_node is not None and b.numa_node is not None and a.numa_node != b.numa_node
        if label is None:
            return (0, 0) if not apart else (1, 0)
        return link_slowness(label)

    return distance
