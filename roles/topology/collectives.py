"""What moving activations between the GPUs of a replica costs."""

from dataclasses import dataclass

from roles.topology.costs import GpuRates, Links


@dataclass(frozen=True)
class LinkCalibration:
    """Global constants of the links, the same for every card.

    Fitted by tests/benchmarks/throughput_regret.py on the rows of tests/data/throughput.jsonl
    (one NVLink 3 system, one NVLink 4 system, one PCIe Gen4 system). `efficiency` is the part of
    a link's rate, one direction, that an all-reduce reaches.
    """

    latency_us: float = 7.3
    latency_per_peer_us: float = 1.0
    efficiency: float = 0.45


LINK_CALIBRATION = LinkCalibration()


def all_reduce_s(
    message_bytes: float,
    gpus: int,
    rates: GpuRates,
    links: Links,
    calibration: LinkCalibration = LINK_CALIBRATION,
) -> float:
    """Seconds of one all-reduce of a message over a replica's GPUs.

    A ring moves 2(n-1)/n of the message over each GPU's link. NVLink and a pair of PCIe peers do
    this at their own link's rate. More PCIe GPUs, or GPUs that are no peers, share the host's
    bridges and memory: the traffic of all n GPUs goes through one path. (vLLM has its fast
    all-reduce only for NVLink and for two PCIe peers; else it is NCCL's ring.) Raises
    ValueError for NVLink without its rate.
    """
    if gpus <= 1:
        return 0.0
    if links.kind == "nvlink":
        if rates.nvlink_gb_s is None:
            raise ValueError("links are nvlink but the GPU's nvlink_gb_s is None: state its rate")
        rate_gb_s = rates.nvlink_gb_s / 2
    else:
        rate_gb_s = rates.pcie_gb_s if gpus == 2 and links.peers else rates.pcie_gb_s / gpus
    latency_us = calibration.latency_us + calibration.latency_per_peer_us * (gpus - 1)
    moved_bytes = 2 * (gpus - 1) / gpus * message_bytes
    return latency_us * 1e-6 + moved_bytes / (rate_gb_s * 1e9 * calibration.efficiency)


def hand_over_s(
    message_bytes: float,
    rates: GpuRates,
    links: Links,
    calibration: LinkCalibration = LINK_CALIBRATION,
) -> float:
    """Seconds to send activations from one pipeline stage to the next: half of a pair's
    all-reduce, which sends and receives."""
    return all_reduce_s(message_bytes, 2, rates, links, calibration) / 2
