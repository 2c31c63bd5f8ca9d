"""The constants of the throughput estimate; an engine without measurements has none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LinkCalibration:
    """Global constants of the links, the same for every card. `efficiency` is the part of a link's
    rate, one direction, that an all-reduce reaches."""

    latency_us: float = 6.7
    latency_per_peer_us: float = 1.2
    efficiency: float = 0.468


LINK_CALIBRATION = LinkCalibration()


@dataclass(frozen=True)
class Spread:
    """The parts of an estimate between which eight of ten measured throughputs lie, where the
    model or the kind of card was left out of the fit."""

    low: float
    high: float


@dataclass(frozen=True)
class Spreads:
    """The ranges of an engine, by tests/benchmarks/throughput_regret.py, which prints how many of
    the rows they hold. `converted`: weights that are converted to 16 bits before they are
    multiplied. `unsure`: requests that wait for room, pipelines, tensor parallel over PCIe, of
    which few rows have any.
    """

    usual: Spread = Spread(0.87, 1.11)
    converted: Spread = Spread(0.79, 1.12)
    unsure: Spread = Spread(0.65, 1.5)


SPREADS = Spreads()


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

    weight_read_efficiency: float = 0.783
    expert_read_efficiency: float = 0.858
    kv_read_efficiency: float = 0.701
    gemm_efficiency: float = 0.71
    expert_gemm_efficiency: float = 0.391
    prefill_attention_efficiency: float = 0.407
    conversion_ps: float = 0.118
    matrix_overhead_us: float = 9.2
    moe_layer_overhead_us: float = 28.7
    prompt_layer_overhead_us: float = 107.0
    request_overhead_us: float = 2.6
    prompt_wait: float = 0.90
    links: LinkCalibration = LINK_CALIBRATION
    spreads: Spreads = SPREADS


CALIBRATION = Calibration()
