"""How near predictions come to real starts: the figures that the project promises."""

from collections.abc import Callable

import pytest

from tests.benchmarks.memory_prediction import (
    Figure,
    broken_promises,
    kv_memory,
    starts,
    tokens,
    weights,
)


@pytest.mark.parametrize(
    ("figure", "median", "nine_of_ten", "rows"),
    [(weights, 0.005, 0.03, 75), (tokens, 0.001, 0.01, 50), (kv_memory, 0.04, 0.12, 50)],
)
def test_errors_are_within_the_promise(
    figure: Callable[[], Figure], median: float, nine_of_ten: float, rows: int
):
    found = figure()
    assert len(found.errors) >= rows
    assert found.quantile(0.5) <= median
    assert found.quantile(0.9) <= nine_of_ten


def test_starts_are_told_from_failures():
    judged = starts()
    assert len(judged.failed) >= 7
    assert judged.failed_but_planned == ()
    assert len(judged.started) >= 55
    assert len(judged.started_but_refused) <= 0.02 * len(judged.started)


def test_no_start_had_less_than_the_promise():
    assert broken_promises() == ()
