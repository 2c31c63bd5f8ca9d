"""Groups the GPUs of a host: near ones first, over NVLink and inside a NUMA node."""

from collections.abc import Callable, Mapping, Sequence

from roles.hardware import Gpu, Hardware, broken_verdict, describe_verdict, link_slowness

Distance = Callable[[Gpu, Gpu], tuple[int, int]]
# Farther than any link: for GPUs that do not work together.
_UNCONNECTED = (99, 0)


def groups(gpus: Sequence[Gpu], size: int, hardware: Hardware) -> list[tuple[Gpu, ...]]:
    """As many groups of `size` GPUs as possible, each of GPUs that are near to each other.

    Groups with the best links between all pairs are formed first, then those over the next slower
    kind of link. So as few groups as possible cross a NUMA node or leave an NVLink island. GPUs
    whose measured all-reduce failed are never in one group, so there may be no group. This includes
    pipelines: their stages communicate through the same library and links.
    """
    if size == 1:
        return [(gpu,) for gpu in gpus]
    distance = _distance(hardware)
    broken_peers = {
        a: sum(distance(a, b) == _UNCONNECTED for b in gpus if b is not a) for a in gpus
    }
    limits = sorted(
        {distance(a, b) for a in gpus for b in gpus if a.index < b.index} - {_UNCONNECTED}
    )
    found = _form_groups(gpus, size, hardware, limits, distance, broken_peers)
    if len(found) < len(gpus) // size and any(broken_peers.values()):
        # Taking near GPUs first may leave over GPUs that do not work together.
        others = _form_groups(gpus, size, hardware, limits[-1:], distance, broken_peers)
        found = max(found, others, key=len)
    return sorted(found, key=lambda group: group[0].index)


def _form_groups(
    gpus: Sequence[Gpu],
    size: int,
    hardware: Hardware,
    limits: Sequence[tuple[int, int]],
    distance: Distance,
    broken_peers: Mapping[Gpu, int],
) -> list[tuple[Gpu, ...]]:
    """Form groups within the first distance limit, then from the rest within the next.

    GPUs with most `broken_peers` choose first and are chosen first."""
    left, found = list(gpus), []
    for limit in limits:
        for seed in sorted(gpus, key=lambda gpu: -broken_peers[gpu]):
            if len(left) < size:
                break
            group = (
                _grow_group(seed, left, size, limit, distance, broken_peers)
                if seed in left
                else None
            )
            if group and not broken_verdict(hardware.interconnect, [g.index for g in group]):
                found.append(group)
                left = [gpu for gpu in left if gpu not in group]
    return found


def broken_links(hardware: Hardware, gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """Descriptions of the sets of these GPUs that do not work together, each once."""
    indexes = {gpu.index for gpu in gpus}
    sets = {one.gpus for one in hardware.interconnect if indexes.issuperset(one.gpus)}
    verdicts = (broken_verdict(hardware.interconnect, one) for one in sorted(sets))
    return tuple(dict.fromkeys(describe_verdict(one) for one in verdicts if one is not None))


def _grow_group(
    seed: Gpu,
    left: Sequence[Gpu],
    size: int,
    limit: tuple[int, int],
    distance: Distance,
    broken_peers: Mapping[Gpu, int],
) -> tuple[Gpu, ...] | None:
    """The seed and its nearest GPUs, with all distances within `limit`; None if too few."""
    group = [seed]
    # Each GPU that may still join, with its distance to the farthest member.
    near = {gpu: distance(seed, gpu) for gpu in left if gpu is not seed}
    while len(group) < size:
        near = {gpu: far for gpu, far in near.items() if far <= limit}
        if len(group) + len(near) < size:
            return None
        newest = min(near, key=lambda gpu: (near[gpu], -broken_peers[gpu], gpu.index))
        group.append(newest)
        del near[newest]
        near = {gpu: max(far, distance(newest, gpu)) for gpu, far in near.items()}
    return tuple(sorted(group, key=lambda gpu: gpu.index))


def _distance(hardware: Hardware) -> Distance:
    """The distance of two GPUs, from their link and their NUMA nodes."""
    labels = {(i, j): label for i, j, label in hardware.links or ()}
    pairs = {one.gpus for one in hardware.interconnect if len(one.gpus) == 2}
    apart_pairs = {pair for pair in pairs if broken_verdict(hardware.interconnect, pair)}

    def distance(a: Gpu, b: Gpu) -> tuple[int, int]:
        pair = (min(a.index, b.index), max(a.index, b.index))
        if pair in apart_pairs:
            return _UNCONNECTED
        label = labels.get(pair)
        crosses_numa_nodes = (
            a.numa_node is not None and b.numa_node is not None and a.numa_node != b.numa_node
        )
        if label is None:
            return (0, 0) if not crosses_numa_nodes else (1, 0)
        return link_slowness(label)

    return distance
