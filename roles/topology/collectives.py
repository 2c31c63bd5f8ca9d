"""The time to move activations between the GPUs of a replica."""

from roles.engine.calibration import LINK_CALIBRATION, LinkCalibration
from roles.topology.costs import GpuRates, ReplicaLinks

# A measurement below this fraction of the estimated rate replaces the estimate, as for a one-lane
# riser. A smaller difference is within the error of the estimate.
FAR_BELOW = 0.5


def all_reduce_s(
    message_bytes: float,
    gpus: int,
    rates: GpuRates,
    links: ReplicaLinks,
    calibration: LinkCalibration = LINK_CALIBRATION,
) -> float:
    """Seconds of one all-reduce of a message over a replica's GPUs.

    A ring moves 2(n-1)/n of the message over each GPU's link. NVLink and a pair of PCIe peers reach
    their link's rate. More PCIe GPUs, or GPUs without P2P, share the host's bridges and memory: the
    traffic of all n GPUs uses one path. (vLLM has its fast all-reduce only for NVLink and for two
    PCIe peers; otherwise it uses NCCL's ring.) A measurement far below the estimate replaces it.
    Raises ValueError for NVLink without its rate.
    """
    if gpus <= 1:
        return 0.0
    rate_gb_s = estimated_gb_s(gpus, rates, links, calibration)
    if measured_far_below(gpus, rates, links, calibration):
        rate_gb_s = links.measured_gb_s or rate_gb_s
    latency_us = calibration.latency_us + calibration.latency_per_peer_us * (gpus - 1)
    moved_bytes = 2 * (gpus - 1) / gpus * message_bytes
    return latency_us * 1e-6 + moved_bytes / (rate_gb_s * 1e9)


def measured_far_below(
    gpus: int, rates: GpuRates, links: ReplicaLinks, calibration: LinkCalibration = LINK_CALIBRATION
) -> bool:
    """Whether the measured rate between a replica's GPUs is far below their links' estimate."""
    measured = links.measured_gb_s
    limit = FAR_BELOW * estimated_gb_s(gpus, rates, links, calibration)
    return measured is not None and 0 < measured < limit


def estimated_gb_s(
    gpus: int, rates: GpuRates, links: ReplicaLinks, calibration: LinkCalibration = LINK_CALIBRATION
) -> float:
    """The bus bandwidth of an all-reduce by the table of cards."""
    if links.kind == "nvlink":
        if rates.nvlink_gb_s is None:
            raise ValueError("links are nvlink but the GPU's nvlink_gb_s is None: state its rate")
        rate_gb_s = rates.nvlink_gb_s / 2
    else:
        rate_gb_s = rates.pcie_gb_s if gpus == 2 and links.peers else rates.pcie_gb_s / gpus
    return rate_gb_s * calibration.efficiency


def hand_over_s(
    message_bytes: float,
    rates: GpuRates,
    links: ReplicaLinks,
    calibration: LinkCalibration = LINK_CALIBRATION,
) -> float:
    """Seconds to send activations to the next pipeline stage: half of a pair's all-reduce, which
    sends and receives."""
    return all_reduce_s(message_bytes, 2, rates, links, calibration) / 2
