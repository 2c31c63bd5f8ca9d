"""The constants of the throughput estimate; an engine without measurements has none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LinkCalibration:
    """Global constants of the links, the same for every card. `efficiency` is the part of a link's
    rate, one direction, that an all-reduce reaches."""

    latency_us: float = 6.3
    latency_per_peer_us: float = 1.17
    efficiency: float = 0.514


LINK_CALIBRATION = LinkCalibration()


@dataclass(frozen=True)
class Calibration:
    """Global constants of the estimate, the same for every card and model.

    Fitted by tests/benchmarks/throughput_regret.py to the measured rows and the composed rows under
    tests/data; it prints their errors on cards and models left out of the fit. Efficiencies are
    fractions of the datasheet's rate. `conversion_ps`: converting one weight of a weight-only
    format. `matrix_overhead_us`: each multiplication by a dense matrix, with what runs beside it.
    `prompt_layer_overhead_us`: each layer of a step with a prompt, which the engine runs without a
    whole CUDA graph. `request_overhead_us`: scheduling and sampling for each request of a step.
    `prompt_wait`: how many prompts a prompt waits for, for each doubling of the requests.
    """

    weight_read_efficiency: float = 0.80
    expert_read_efficiency: float = 0.87
    kv_read_efficiency: float = 0.68
    gemm_efficiency: float = 0.76
    expert_gemm_efficiency: float = 0.41
    prefill_attention_efficiency: float = 0.57
    conversion_ps: float = 0.117
    matrix_overhead_us: float = 9.3
    moe_layer_overhead_us: float = 28.6
    prompt_layer_overhead_us: float = 108.0
    request_overhead_us: float = 3.5
    prompt_wait: float = 0.96
    links: LinkCalibration = LINK_CALIBRATION


CALIBRATION = Calibration()
