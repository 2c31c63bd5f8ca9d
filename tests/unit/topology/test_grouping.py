"""Which GPUs work together, on real topologies."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware import Gpu, Hardware, worst_link
from roles.hardware.outputs.topo import parse_topo
from roles.topology.grouping import groups
from roles.topology.rates import slowest_group

TOPO = Path(__file__).parents[2] / "data" / "gpu-outputs" / "topo"


def host(name: str) -> Hardware:
    (file,) = TOPO.glob(f"{name}*.txt")
    topology = parse_topo(file.read_text())
    gpus = tuple(
        Gpu(index, "card", 24576, numa_node=numa)
        for index, numa in zip(topology.indexes, topology.numa_affinity, strict=True)
    )
    return Hardware(gpus, topology.links)


def indexes(hardware: Hardware, size: int) -> list[tuple[int, ...]]:
    found = groups(hardware.gpus, size, hardware)
    return [tuple(gpu.index for gpu in group) for group in found]


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        # PIX inside two switches, SYS between sockets.
        ("8x-rtx-4090_sglang-1076", 4, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        # Bridges join 0 and 1, 2 and 3.
        ("4x-rtx-a6000_vllm-8158", 2, [(0, 3), (1, 2)]),
        # The cubes of a DGX-1: NV2 pairs first.
        ("8x-v100-sxm2-32gb_vllm-10662", 2, None),
        ("8x-h100-80gb-hbm3_sglang-1087", 2, [(0, 1), (2, 3), (4, 5), (6, 7)]),
        ("8x-h100-80gb-hbm3_sglang-1087", 8, [tuple(range(8))]),
    ],
)
def test_near_gpus_work_together(name: str, size: int, expected: list | None):
    hardware = host(name)
    found = indexes(hardware, size)
    assert len(found) == len(hardware.gpus) // size
    if expected is not None:
        assert found == expected
    else:
        assert hardware.links is not None
        assert {worst_link(hardware.links, group) for group in found} == {"NV2"}


def test_the_slowest_group_is_told_by_its_link_and_not_by_the_alphabet():
    # In the alphabet NODE comes before NV4, and PHB before PIX.
    gpus = tuple(Gpu(i, "card", 24576) for i in range(4))
    for fast, slow in (("NV4", "NODE"), ("PIX", "PHB"), ("NV18", "NV4")):
        hardware = Hardware(gpus, ((0, 1, fast), (2, 3, slow)))
        pairs = [gpus[:2], gpus[2:]]
        assert slowest_group(pairs, hardware) == (gpus[2:], slow)
        assert slowest_group(pairs[::-1], hardware) == (gpus[2:], slow)
    assert slowest_group([gpus[:1], gpus[1:2]], Hardware(gpus)) == (gpus[:1], None)


def numa_host(*nodes: int) -> Hardware:
    return Hardware(tuple(Gpu(i, "card", 24576, numa_node=node) for i, node in enumerate(nodes)))


def test_without_links_numa_nodes_tell():
    assert indexes(numa_host(0, 1, 0, 1), 2) == [(0, 2), (1, 3)]


def test_as_little_as_can_be_crosses_nodes():
    found = indexes(numa_host(0, 0, 0, 1, 1, 1, 1, 1), 2)
    assert len(found) == 4
    assert sum(len({0 if i < 3 else 1 for i in pair}) > 1 for pair in found) == 1


LABELS = st.sampled_from(["NV18", "NV4", "NV1", "PIX", "PXB", "PHB", "NODE", "SYS"])


@given(st.integers(1, 10), st.integers(1, 10), st.data())
def test_every_gpu_is_in_one_group_and_no_more(count: int, size: int, data: st.DataObject):
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    links = tuple((i, j, data.draw(LABELS)) for i, j in pairs)
    hardware = Hardware(tuple(Gpu(i, "card", 24576) for i in range(count)), links)
    found = indexes(hardware, size)
    used = [index for group in found for index in group]
    assert len(found) == count // size
    assert len(used) == len(set(used)) and all(len(group) == size for group in found)
