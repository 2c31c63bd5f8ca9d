"""What a run knows of replicas: the last that it saw, or nothing."""

from collections.abc import Callable

import pytest

from roles.checks import Check
from roles.stages.seen import Seen


def units(seen: Seen) -> None:
    seen.units("gpu1", {"a": True, "b": False})


def completion(outcome: str) -> Check:
    return Check("completion", "a", outcome, "", host="gpu1")  # type: ignore[arg-type]


UNANSWERED = Check("host", "gpu1", "fail", "not validated", host="gpu1")


@pytest.mark.parametrize(
    ("steps", "failed", "serves"),
    [
        ([], False, [None, None]),
        ([units], False, [True, False]),
        # Units of a host that failed meanwhile may be anything.
        ([units], True, [None, None]),
        ([units, lambda s: s.touched("gpu1")], False, [None, None]),
        ([units, lambda s: s.touched("gpu1", ["a"])], False, [None, False]),
        ([units, lambda s: s.touched("gpu1", ["a"]), units], False, [True, False]),
        ([lambda s: s.touched("gpu1", ["a"]), lambda s: s.proved(["gpu1/a"])], True, [True, None]),
        ([units, lambda s: s.proved(["gpu1/a"], serves=False)], False, [False, False]),
        ([units, lambda s: s.proved(["gpu2/a"], serves=False)], False, [True, False]),
        ([lambda s: s.checked([completion("pass")])], True, [True, None]),
        ([units, lambda s: s.checked([completion("fail")])], False, [False, False]),
        ([units, lambda s: s.checked([completion("skipped")])], False, [True, False]),
        ([units, lambda s: s.proved(["gpu1/a"]), lambda s: s.checked([UNANSWERED])], True,
         [None, None]),
    ],
)  # fmt: skip
def test_the_last_sight_counts(
    steps: list[Callable[[Seen], None]], failed: bool, serves: list[bool | None]
):
    seen = Seen()
    for step in steps:
        step(seen)
    assert [seen.serves("gpu1", name, failed) for name in "ab"] == serves
