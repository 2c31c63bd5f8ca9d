"""How good the performance estimate is, and the choice that follows from it.

`python -m tests.benchmarks.throughput_regret` prints regret and error with the product's
constants, with constants fitted to all rows, and fitted without each GPU and each model and
tested on what was left out (a minute or two). `--quick`: the first alone.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roles.engine.calibration import CALIBRATION, Calibration
from roles.plan import Estimate
from roles.topology.choice import Objective, best
from tests.benchmarks.fitting import fit
from tests.benchmarks.throughput_cases import Row, estimates, rows

REFERENCE = "reference: a peer's estimate composed from measured kernels, not end to end"


# Cases have equal concurrency per GPU: as on a host with this many.
GPUS = 8


@dataclass(frozen=True)
class Option:
    """The replicas of one shape on such a host."""

    replicas: int
    estimate: Estimate


@dataclass(frozen=True)
class Score:
    """Regrets of the cases with a choice, and relative errors of all rows' throughput."""

    regrets: tuple[float, ...]
    errors: tuple[float, ...] = ()

    def __add__(self, other: "Score") -> "Score":
        return Score(self.regrets + other.regrets, self.errors + other.errors)

    @property
    def mean_regret(self) -> float:
        return sum(self.regrets) / len(self.regrets)

    def line(self, name: str) -> str:
        text = f"{name:<34} regret mean {self.mean_regret:6.1%}, 90% {quantile(self.regrets):6.1%}"
        if self.errors:
            median = quantile(self.errors, 0.5)
            text += f"; estimate's error median {median:5.1%}, 90% {quantile(self.errors):5.1%}"
        return f"{text} ({REFERENCE})"


def quantile(values: Sequence[float], part: float = 0.9) -> float:
    """The smallest value that at least this part of all do not exceed."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


def cases(data: Sequence[Row]) -> list[list[int]]:
    """Indices of the rows of each case with more than one tensor parallel size that fits."""
    found: dict[tuple, list[int]] = defaultdict(list)
    for index, row in enumerate(data):
        found[row.case].append(index)
    return [indices for indices in found.values() if len(indices) > 1]


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

    errors = (
        abs(one.tokens_per_s_per_gpu / row.tokens_per_s_per_gpu - 1)
        for one, row in zip(made, data, strict=True)
    )
    return Score(regrets(data, choose), tuple(errors))


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


def left_out(data: Sequence[Row], field: str) -> dict[str, Score]:
    """Scores on each GPU's or model's rows, with the constants fitted to all other rows."""
    found: dict[str, Score] = {}
    for name in sorted({getattr(row, field) for row in data}):
        others = [row for row in data if getattr(row, field) != name]
        found[name] = score([row for row in data if getattr(row, field) == name], fit(others))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    data = rows()
    print(f"{len(data)} rows, {len(cases(data))} cases with a choice")
    for name, found in baselines(data).items():
        print(found.line(name))
    print(score(data).line("estimate"))
    if quick:
        return
    fitted = fit(data)
    print(score(data, fitted).line("estimate, fitted to all rows now"))
    print(f"  {fitted}")
    for field in ("gpu", "model"):
        parts = left_out(data, field)
        for name, found in parts.items():
            print(found.line(f"  without {name.split('/')[-1][:24]}"))
        print(sum(parts.values(), Score(())).line(f"estimate, each {field} left out"))


if __name__ == "__main__":
    main()
