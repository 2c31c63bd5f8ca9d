"""The fit of the estimate's global constants: damped least squares over logarithms."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict

from roles.engine.calibration import Calibration, LinkCalibration
from tests.benchmarks.throughput_cases import Row, estimates

# Where a fit starts and what it is held near, softly: round figures of the trade, not a fit's
# results, so that what is left out of a fit stays unknown to it.
PRIOR = Calibration(
    weight_read_efficiency=0.8,
    expert_read_efficiency=0.7,
    kv_read_efficiency=0.8,
    gemm_efficiency=0.65,
    expert_gemm_efficiency=0.4,
    prefill_attention_efficiency=0.5,
    conversion_ps=0.2,
    matrix_overhead_us=3,
    moe_layer_overhead_us=20,
    prompt_layer_overhead_us=50,
    request_overhead_us=10,
    prompt_wait=0.15,
    links=LinkCalibration(
        latency_us=8,
        latency_per_peer_us=1,
        efficiency=0.6,
    ),
)
# The constants by name, those of the links last.
NAMES = (
    *(name for name in Calibration.__dataclass_fields__ if name not in ("links", "spreads")),
    *LinkCalibration.__dataclass_fields__,
)
PRIOR_WEIGHT = 0.05
TTFT_WEIGHT = 0.1
# Estimates of a peer count less than measurements.
COMPOSED_WEIGHT = 0.5
# Residuals beyond this count less than their square: no outlier decides.
OUTLIER = 0.15
STEPS = 15
# A step that changes no constant by more than this part is the last.
CONVERGED = 0.01

Vector = list[float]


def fit(
    data: Sequence[Row],
    begin: Calibration = PRIOR,
    prior: Calibration = PRIOR,
    names: Sequence[str] = NAMES,
) -> Calibration:
    """The constants that fit these rows, searched from `begin`; those not in `names` stay.

    Composed rows with more requests than output tokens stay out (the peer limits what runs there,
    see throughput_cases).
    """
    kept = [row for row in data if row.measured or row.concurrency <= row.output_tokens]
    varied = [NAMES.index(name) for name in names]
    held, near = _logarithms(begin), _logarithms(prior)

    def whole(point: Vector) -> Calibration:
        found = list(held)
        for index, value in zip(varied, point, strict=True):
            found[index] = value
        return _calibration(found)

    def residuals(point: Vector) -> Vector:
        found: Vector = []
        for row, made in zip(kept, estimates(kept, whole(point)), strict=True):
            weight = 1.0 if row.measured else COMPOSED_WEIGHT
            found.append(weight * math.log(made.tokens_per_s_per_gpu / row.tokens_per_s_per_gpu))
            found.append(weight * TTFT_WEIGHT * math.log(made.ttft_ms / row.ttft_ms))
        drawn = (near[index] for index in varied)
        return [*found, *(PRIOR_WEIGHT * (a - b) for a, b in zip(point, drawn, strict=True))]

    point = [held[index] for index in varied]
    for _ in range(STEPS):
        step = _step(residuals, point)
        point = [value + move for value, move in zip(point, step, strict=True)]
        if max(map(abs, step)) < CONVERGED:
            break
    return whole(point)


def _logarithms(calibration: Calibration) -> Vector:
    own = asdict(calibration)
    links = own.pop("links")
    del own["spreads"]
    return [math.log(value) for value in (*own.values(), *links.values())]


def _calibration(point: Vector) -> Calibration:
    values = [math.exp(value) for value in point]
    own = len(NAMES) - len(LinkCalibration.__dataclass_fields__)
    links = LinkCalibration(*values[own:])
    return Calibration(*values[:own], links=links)


def _step(residuals: Callable[[Vector], Vector], point: Vector, width: float = 1e-3) -> Vector:
    """One Gauss-Newton step, shortened to at most a factor of e for any constant."""
    here = residuals(point)
    weights = [1 / math.sqrt(1 + (value / OUTLIER) ** 2) for value in here]
    slopes: list[Vector] = []
    for index in range(len(point)):
        moved = [value + width * (index == other) for other, value in enumerate(point)]
        slopes.append([(a - b) / width for a, b in zip(residuals(moved), here, strict=True)])
    matrix = [[_dot(a, b, weights) for b in slopes] for a in slopes]
    step = _solved(matrix, [-_dot(a, here, weights) for a in slopes])
    longest = max(1.0, *(abs(value) for value in step))
    return [move / longest for move in step]


def _dot(left: Vector, right: Vector, weights: Vector) -> float:
    return sum(a * b * weight for a, b, weight in zip(left, right, weights, strict=True))


def _solved(matrix: list[Vector], right: Vector) -> Vector:
    """Gaussian elimination; the matrix is positive definite through the prior's rows."""
    table = [[*line, value] for line, value in zip(matrix, right, strict=True)]
    size = len(table)
    for column in range(size):
        for line in range(column + 1, size):
            factor = table[line][column] / table[column][column]
            table[line] = [a - factor * b for a, b in zip(table[line], table[column], strict=True)]
    found = [0.0] * size
    for line in reversed(range(size)):
        known = sum(table[line][other] * found[other] for other in range(line + 1, size))
        found[line] = (table[line][size] - known) / table[line][line]
    return found
