"""How long the changes of a plan should take, as they took before."""

import pytest

from roles.stages.difference import MOVED, STARTED, expected
from roles.stages.progress import Key


@pytest.mark.parametrize(
    ("fresh", "batches", "took", "lines"),
    [
        ([], [], {("a", MOVED): 9.0}, []),
        (["a"], [], {}, []),
        ([], [["a"], ["b"]], {},
         ["expected: 2 batches; how long is not known before it was done once"]),
        ([], [["a"]], {("a", MOVED): 42.4},
         ["expected: 42 s for 1 batch (last time a 42 s)"]),
        # Hosts of a batch move side by side; who was never seen takes as long as the slowest.
        ([], [["a", "b"], ["c"]], {("a", MOVED): 40.0, ("b", MOVED): 60.0},
         ["expected: 120 s for 2 batches (last time a 40 s, b 60 s)"]),
        # A host that only ever started fresh loads as long.
        ([], [["a"]], {("a", STARTED): 30.0}, ["expected: 30 s for 1 batch (last time a 30 s)"]),
        (["a", "b"], [], {("a", STARTED): 30.0, ("b", STARTED): 50.0, ("a", MOVED): 99.0},
         ["expected: 50 s to start (last time a 30 s, b 50 s)"]),
    ],
)  # fmt: skip
def test_the_expected_duration(
    fresh: list[str], batches: list[list[str]], took: dict[Key, float], lines: list[str]
):
    assert expected(fresh, batches, took) == lines
