"""`nvidia-smi topo -p2p r`: which pairs of GPUs may read each other's memory."""

from dataclasses import dataclass

from roles.hardware.outputs.matrix import gpu_index, read_matrix
from roles.hardware.outputs.text import OutputError
from roles.hardware.outputs.topo import LINK_LABELS, P2P_LABELS


@dataclass(frozen=True)
class TopoP2p:
    """What `nvidia-smi topo -p2p` shows, labels as printed.

    OK (possible), CNS (chipset), GNS (GPU), TNS (topology not supported), NS (not supported), DR
    (disabled by regkey), U (unknown). `pairs` has each pair of printed numbers once, the lower
    first, sorted.
    """

    gpus: int
    indexes: tuple[int, ...]
    pairs: tuple[tuple[int, int, str], ...]


def parse_topo_p2p(text: str) -> TopoP2p:
    """Reads `nvidia-smi topo -p2p`; OutputError names the line that contradicts or is missing."""
    matrix = read_matrix(text, P2P_LABELS, LINK_LABELS)
    if matrix.attributes and not matrix.gpu_pairs:
        # One GPU has no label that would tell the two outputs apart.
        raise OutputError("this is the output of nvidia-smi topo -m: give that of topo -p2p r")
    indexes = tuple(map(gpu_index, matrix.gpus()))
    return TopoP2p(gpus=len(indexes), indexes=indexes, pairs=matrix.gpu_pairs)
