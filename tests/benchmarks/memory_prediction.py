"""How near predictions come to what vLLM reported at real starts.

`python -m tests.benchmarks.memory_prediction` prints the figures, the worst rows and the rows that
were left out, each with the reason that its own text gives.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from roles.topology.predict import CaseSettings, memory_of, predict
from tests.benchmarks.startup_rows import OUT_OF_MEMORY, STARTED, Row, rows


@dataclass(frozen=True)
class Figure:
    """Relative errors by row, and what was left out of them and why."""

    name: str
    errors: dict[str, float]
    left_out: dict[str, str]

    def quantile(self, part: float) -> float:
        """The size of error that at least this part of the rows do not exceed."""
        sizes = sorted(map(abs, self.errors.values()))
        return sizes[math.ceil(part * len(sizes)) - 1]

    def line(self) -> str:
        """The figure in one line."""
        return (
            f"{self.name:<24} {len(self.errors):>3} rows  median {self.quantile(0.5):7.3%}  "
            f"nine of ten {self.quantile(0.9):7.3%}  worst {self.quantile(1):.1%}"
        )


@cache
def _predicted(row_id: str, known_kv: bool) -> Any:
    row = next(row for row in rows() if row["id"] == row_id)
    case = dict(row.case)
    if known_kv:
        case["available_kv_gib"] = row["available_kv_gib"]
    if case["gpu"] == {"name": None, "memory_gib": None}:
        # Weights and tokens do not depend on it.
        case["gpu"] = {"name": None, "memory_gib": 1024}
    return predict(CaseSettings.model_validate(case))


def _figure(
    name: str,
    relevant: Callable[[Row], bool],
    error: Callable[[Row], float],
    reason: Callable[[Row], str | None] = lambda row: row.reason,
) -> Figure:
    errors, left_out = {}, {}
    for row in rows():
        if not relevant(row):
            continue
        if against := reason(row):
            left_out[row["id"]] = against
        else:
            errors[row["id"]] = error(row)
    return Figure(name, errors, left_out)


def weights() -> Figure:
    """Weights on a GPU once they are loaded."""
    return _figure(
        "weights",
        lambda row: row["weights_gib"] is not None,
        lambda row: _predicted(row["id"], False).weights_gib / row["weights_gib"] - 1,
    )


def tokens() -> Figure:
    """Tokens of a KV cache whose memory is known."""
    return _figure(
        "tokens from KV memory",
        lambda row: bool(row["kv_cache_tokens"] and row["available_kv_gib"]),
        lambda row: _predicted(row["id"], True).kv_cache_tokens / row["kv_cache_tokens"] - 1,
    )


def kv_memory() -> Figure:
    """KV cache memory of a start, where the GPU's memory is known and some was left."""
    return _figure(
        "KV memory",
        lambda row: (row["available_kv_gib"] or 0) > 0 and _has_gpu(row),
        lambda row: _predicted(row["id"], False).available_kv_gib / row["available_kv_gib"] - 1,
        lambda row: (
            row.reason or ("not said: utilization" if not row["gpu_memory_utilization"] else None)
        ),
    )


def broken_promises() -> tuple[str, ...]:
    """The rows of `kv_memory` with less KV cache than the promised lower bound."""
    by_id = {row["id"]: row for row in rows()}
    return tuple(
        name for name in kv_memory().errors
        if promised_kv_gib(by_id[name]) > by_id[name]["available_kv_gib"]
    )  # fmt: skip


def promised_kv_gib(row: Row) -> float:
    """The lower bound of a row's KV cache memory."""
    return memory_of(CaseSettings.model_validate(row.case)).promised_kv_gib


def _has_gpu(row: Row) -> bool:
    return row["gpu_model"] is not None or row["gpu_mem_gib"] is not None


@dataclass(frozen=True)
class Starts:
    """Ids of the starts that were judged, and those judged wrongly."""

    failed: tuple[str, ...]
    failed_but_planned: tuple[str, ...]
    started: tuple[str, ...]
    started_but_refused: tuple[str, ...]
    left_out: dict[str, str]

    def line(self) -> str:
        """The figures in two lines."""
        return (
            f"failed for memory {len(self.failed):>3}, planned as fitting: "
            f"{len(self.failed_but_planned)} {', '.join(self.failed_but_planned)}\n"
            f"started           {len(self.started):>3}, refused: "
            f"{len(self.started_but_refused)} {', '.join(self.started_but_refused)}"
        )


def starts() -> Starts:
    """Whether starts were told from failures, where model, GPU, TP and length are known."""
    failed, started, left_out = [], [], {}
    for row in rows():
        if row["outcome"] not in (STARTED, *OUT_OF_MEMORY):
            continue
        missing = [] if _has_gpu(row) else ["GPU"]
        missing += ["TP"] * (row["tensor_parallel_size"] is None)
        missing += ["length"] * (row["max_model_len"] is None)
        if reason := row.reason or ("not said: " + ", ".join(missing) if missing else None):
            left_out[row["id"]] = reason
        else:
            (started if row["outcome"] == STARTED else failed).append(row["id"])
    return Starts(
        tuple(failed),
        tuple(name for name in failed if _predicted(name, False).fits),
        tuple(started),
        tuple(name for name in started if not _predicted(name, False).fits),
        left_out,
    )


def _worst(figure: Figure, count: int = 12) -> Iterable[str]:
    order = sorted(figure.errors, key=lambda name: -abs(figure.errors[name]))
    by_id = {row["id"]: row for row in rows()}
    for name in order[:count]:
        row = by_id[name]
        about = [row["model_id"], row["quantization"], row["gpu_model"], row["vllm_version"]]
        yield f"  {name} {figure.errors[name]:+8.2%}  {', '.join(str(x) for x in about if x)}"


def main() -> None:
    """Print everything."""
    figures = (weights(), tokens(), kv_memory())
    for figure in figures:
        print(figure.line())
        print("\n".join(_worst(figure)))
    print(f"less than promised: {', '.join(broken_promises()) or 'none'}")
    judged = starts()
    print(judged.line())
    reasons: dict[str, list[str]] = {}
    for part in (*(figure.left_out for figure in figures), judged.left_out):
        for name, reason in part.items():
            if name not in reasons.setdefault(reason, []):
                reasons[reason].append(name)
    print("Left out of the figures that they would belong to:")
    for reason, names in sorted(reasons.items()):
        print(f"  {reason}: {', '.join(sorted(names))}")


if __name__ == "__main__":
    main()
