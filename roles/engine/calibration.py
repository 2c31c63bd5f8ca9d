"""The constants of the throughput estimate; an engine without measurements has none."""

from dataclasses import dataclass


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


@dataclass(frozen=True)
class Calibration:
    """Global constants of the estimate, the same for every card and model.

    Fitted by tests/benchmarks/throughput_regret.py on tests/data/throughput.jsonl, which prints
    their errors on GPUs and models left out of the fit. Efficiencies are fractions of the
    datasheet's rate.
    """

    weight_read_efficiency: float = 0.76
    expert_read_efficiency: float = 0.87
    kv_read_efficiency: float = 0.67
    gemm_efficiency: float = 0.70
    expert_gemm_efficiency: float = 0.36
    prefill_attention_efficiency: float = 0.60
    layer_overhead_us: float = 29.0
    moe_layer_overhead_us: float = 27.0
    first_token_layer_overhead_us: float = 910.0
    prompt_wait_per_doubling: float = 0.13
    links: LinkCalibration = LINK_CALIBRATION


CALIBRATION = Calibration()
