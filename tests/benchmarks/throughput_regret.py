"""How good the performance estimate is, and the choice that follows from it.

`python -m tests.benchmarks.throughput_regret` prints, over measured and over composed rows, the
bias (of the geometric mean), the size of the error, and the regret of the choice of a tensor
parallel size: with the product's constants, and with constants that are fitted without each model
and without each kind of card and tested on what was left out (some minutes). `--quick`: the first
alone. `--fit`: also the constants fitted to all rows now.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from roles.engine.calibration import CALIBRATION, Calibration
from roles.engine.engine import engine
from roles.plan import Estimate
from roles.topology.choice import Objective, best
from tests.benchmarks.fitting import fit
from tests.benchmarks.measured_rows import measured_rows
from tests.benchmarks.throughput_cases import Row, estimates, rows

# Cases have equal concurrency per GPU: as on a host with this many.
GPUS = 8


@dataclass(frozen=True)
class Option:
    """The replicas of one shape on such a host."""

    replicas: int
    estimate: Estimate


@dataclass(frozen=True)
class Score:
    """Regrets of the cases with a choice; of all rows, estimate over measured throughput, and
    whether the estimate's range holds it."""

    regrets: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    within: tuple[bool, ...] = ()

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.regrets + other.regrets,
            self.ratios + other.ratios,
            self.within + other.within,
        )

    @property
    def mean_regret(self) -> float:
        return sum(self.regrets) / len(self.regrets)

    @property
    def errors(self) -> tuple[float, ...]:
        return tuple(abs(ratio - 1) for ratio in self.ratios)

    @property
    def coverage(self) -> float:
        """The part of the measurements that lie in their estimate's range."""
        return sum(self.within) / len(self.within)

    @property
    def bias(self) -> float:
        return math.exp(sum(map(math.log, self.ratios)) / len(self.ratios)) - 1

    def line(self, name: str) -> str:
        text = f"  {name:<44}"
        if self.ratios:
            text += (
                f"{len(self.ratios):>4} rows: bias {self.bias:+6.1%}, error median "
                f"{quantile(self.errors, 0.5):5.1%}, nine of ten {quantile(self.errors):6.1%}, "
                f"in range {self.coverage:4.0%}; "
            )
        if self.regrets:
            text += (
                f"{len(self.regrets):>3} choices: regret mean {self.mean_regret:5.1%}, "
                f"nine of ten {quantile(self.regrets):5.1%}"
            )
        return text.rstrip("; ")


def quantile(values: Sequence[float], part: float = 0.9) -> float:
    """The smallest value that at least this part of all do not exceed."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


def cases(data: Sequence[Row]) -> list[list[int]]:
    """Indices of the rows of each case with more than one tensor parallel size that fits; of rows
    of one size the first counts."""
    found: dict[tuple, dict[int, int]] = defaultdict(dict)
    for index, row in enumerate(data):
        found[row.case].setdefault(row.tensor_parallel_size, index)
    return [list(indices.values()) for indices in found.values() if len(indices) > 1]


def regrets(data: Sequence[Row], choose: Callable[[list[int]], int]) -> tuple[float, ...]:
    """The throughput lost by each choice, as a part of the best."""
    measured = [row.tokens_per_s_per_gpu for row in data]
    return tuple(
        1 - measured[choose(case)] / max(measured[index] for index in case) for case in cases(data)
    )


def score(data: Sequence[Row], calibration: Calibration = CALIBRATION) -> Score:
    """The regret of the product's own choice, its tie rule included, and the error."""
    made = estimates(data, calibration)

    def choose(case: list[int]) -> int:
        options = [Option(GPUS // data[index].tensor_parallel_size, made[index]) for index in case]
        return case[best(options, Objective())]

    ratios = (
        one.tokens_per_s_per_gpu / row.tokens_per_s_per_gpu
        for one, row in zip(made, data, strict=True)
    )
    within = (
        one.tokens_per_s_low <= row.tokens_per_s_per_gpu * row.gpus <= one.tokens_per_s_high
        for one, row in zip(made, data, strict=True)
    )
    return Score(regrets(data, choose), tuple(ratios), tuple(within))


def baselines(data: Sequence[Row]) -> dict[str, Score]:
    """What three simple rules lose."""

    def size(index: int) -> int:
        return data[index].tensor_parallel_size

    rules: dict[str, Callable[[list[int]], int]] = {
        "smallest TP that fits": lambda case: min(case, key=size),
        "all GPUs": lambda case: max(case, key=size),
        "TP2 if it fits": lambda case: min(case, key=lambda index: (size(index) != 2, size(index))),
    }
    return {name: Score(regrets(data, rule)) for name, rule in rules.items()}


Sets = dict[str, list[Row]]
Fit = Callable[[Sequence[Row]], Calibration]

# What differs most between the engines; for all else SGLang has vLLM's constants.
OF_SGLANG = ("moe_layer_overhead_us", "expert_read_efficiency")


def fit_sglang(data: Sequence[Row]) -> Calibration:
    """The product's constants, a few of them fitted to SGLang's rows."""
    fitted = fit(data, CALIBRATION, CALIBRATION, OF_SGLANG)
    return replace(fitted, spreads=calibration_of("sglang").spreads)


def calibration_of(kind: str) -> Calibration:
    """The product's constants for an engine that has any."""
    found = engine(kind).calibration
    assert found is not None
    return found


def left_out(sets: Sets, field: str, fitted: Fit) -> dict[str, dict[str, Score]]:
    """Scores on each model's (`base`) or card's (`kind`) rows by set, with the constants fitted to
    the rows of all others."""
    everything = [row for data in sets.values() for row in data]
    found: dict[str, dict[str, Score]] = {name: {} for name in sets}
    for value in sorted({getattr(row, field) for row in everything}):
        calibration = fitted([row for row in everything if getattr(row, field) != value])
        for name, data in sets.items():
            if own := [row for row in data if getattr(row, field) == value]:
                found[name][value] = score(own, calibration)
    return found


def show_left_out(sets: Sets, fitted: Fit) -> None:
    """Print the scores of each model and each kind of card left out, and pooled."""
    for field in ("base", "kind"):
        for name, parts in left_out(sets, field, fitted).items():
            print(f"{name}, each {'model' if field == 'base' else 'kind of card'} left out")
            for value, found in parts.items():
                print(found.line(value))
            print(sum(parts.values(), Score()).line("pooled"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    sets = {"measured": measured_rows(), "composed": rows()}
    for name, data in sets.items():
        print(name)
        for rule, found in baselines(data).items():
            print(found.line(rule))
        print(score(data).line("the product's constants"))
    if arguments.fit:
        fitted = fit([row for data in sets.values() for row in data])
        for name, data in sets.items():
            print(score(data, fitted).line(f"{name}: fitted now"))
        print(f"  {fitted}")
    if arguments.quick:
        return
    start = fit([row for data in sets.values() for row in data])
    show_left_out(sets, lambda data: fit(data, start))
    sglang = measured_rows("sglang")
    print("SGLang, measured")
    print(score(sglang).line("vLLM's constants"))
    print(score(sglang, calibration_of("sglang")).line("the product's constants for it"))
    print(score(sglang, fit_sglang(sglang)).line("a few of them fitted now"))
    show_left_out({"SGLang, measured": sglang}, fit_sglang)


if __name__ == "__main__":
    main()
