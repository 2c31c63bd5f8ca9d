from pathlib import Path

import pytest

from roles.hardware.links import (
    p2p_possible,
    worst_link,
)
from roles.hardware.outputs.topo import Topology, parse_topo

OUTPUTS = Path(__file__).parents[2] / "data" / "gpu-outputs" / "topo"


def topology(name: str) -> Topology:
    return parse_topo((OUTPUTS / f"{name}.txt").read_bytes().decode("utf-8"))


@pytest.mark.parametrize(
    ("name", "group", "label"),
    [
        ("4x-rtx-a6000_vllm-8158", [0, 3], "NV4"),
        ("4x-rtx-a6000_vllm-8158", [3, 0, 1], "SYS"),
        ("4x-hybrid-nv1-nv2-mlx5_code", [0, 1, 2, 3], "NV1"),
        ("4x-hybrid-nv1-nv2-mlx5_code", [0, 3], "NV2"),
        ("8x-rtx-pro-6000_wrx90-microchip_pix-pxb-node", [0, 1], "PIX"),
        ("8x-rtx-pro-6000_wrx90-microchip_pix-pxb-node", [0, 1, 2], "PXB"),
        ("8x-rtx-pro-6000_wrx90-microchip_pix-pxb-node", [0, 1, 4], "NODE"),
        ("4x-soc-mlx4_0_tensorflow-gdr", [0, 1], "PHB"),
        ("4x-soc-mlx4_0_tensorflow-gdr", [0, 1, 2], "SOC"),
        ("8x-b200_vllm-20862", [5], None),
        ("8x-b200_vllm-20862", [], None),
    ],
)
def test_worst_link(name: str, group: list[int], label: str | None):
    assert worst_link(topology(name).links, group) == label


def test_a_gpu_that_the_host_lacks_is_an_error():
    with pytest.raises(ValueError, match="the link of GPU 0 and GPU 9"):
        worst_link(topology("4x-rtx-a6000_vllm-8158").links, [0, 9])


def test_numa_nodes_by_index():
    assert topology("4x-h100-nv6-odd-numa_nccl-1617").numa_affinity == (3, 1, 7, 5)
    assert topology("4x-rtx-a6000_vllm-8158").numa_affinity == (None,) * 4


RTX_4090 = "NVIDIA GeForce RTX 4090"


@pytest.mark.parametrize(
    ("names", "pairs", "link", "possible"),
    [
        ([RTX_4090] * 2, None, None, False),
        (["NVIDIA GeForce RTX 3090"] * 2, None, "PHB", False),
        (["NVIDIA GeForce RTX 3090"] * 2, None, "NV4", True),
        (["NVIDIA GeForce RTX 5090", "NVIDIA H100 PCIe"], None, None, False),
        (["NVIDIA A100-SXM4-80GB"] * 2, None, None, True),
        (["NVIDIA H100 80GB HBM3"] * 2, None, None, True),
        (["NVIDIA L40S"] * 2, None, None, True),
        (["Tesla V100-PCIE-16GB"] * 2, None, None, True),
        (["NVIDIA GB200"] * 2, None, None, True),
        (["NVIDIA RTX A6000"] * 2, None, None, True),
        (["NVIDIA RTX 6000 Ada Generation"] * 2, None, None, True),
        # The driver's word goes before the card's, as on the 2x L4 of ml-engineering.
        (["NVIDIA L4"] * 2, [(0, 1, "CNS")], None, False),
        ([RTX_4090] * 2, [(0, 1, "OK")], None, True),
        ([RTX_4090] * 2, [(0, 1, "U")], None, False),
        (["NVIDIA L4"] * 2, [(0, 2, "CNS")], None, True),
        # Nobody knows.
        (["NVIDIA A40", "NVIDIA RTX A6000"], None, None, None),
        (["GRID A100-40C"] * 2, None, None, None),
        (["NVIDIA A100-SXM4-80GB MIG 1g.10gb"] * 2, None, None, None),
        (["NVIDIA L40S-48Q"] * 2, None, None, None),
        (["NVIDIA A10-24C"] * 2, None, None, None),
        (["NVIDIA H100L-1-12C"] * 2, None, None, None),
        (["NVIDIA GeForce RTX 2080 Ti"] * 2, None, None, None),
        (["NVIDIA GeForce GTX 1080 Ti"] * 2, None, None, None),
        (["CF-NG-HZZ1-O"] * 2, None, None, None),
        (["Intel Arc A770"] * 2, None, None, None),
    ],
)
def test_p2p_possible(
    names: list[str],
    pairs: list[tuple[int, int, str]] | None,
    link: str | None,
    possible: bool | None,
):
    assert p2p_possible(names, pairs, 0, 1, link) is possible
    assert p2p_possible(names, pairs, 1, 0, link) is possible
