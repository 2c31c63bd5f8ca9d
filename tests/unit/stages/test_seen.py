"""What a run knows of replicas: the last that it saw, or nothing."""

from collections.abc import Callable

import pytest

from roles.checks import Check
from roles.stages.seen import Seen, Sight


def units(seen: Seen) -> None:
    seen.units("gpu1", {"a": "serves", "b": "loading"})


def completion(outcome: str) -> Check:
    return Check("completion", "a", outcome, "", host="gpu1")  # type: ignore[arg-type]


UNANSWERED = Check("host", "gpu1", "fail", "not validated", host="gpu1")


@pytest.mark.parametrize(
    ("steps", "failed", "sights"),
    [
        ([], False, [None, None]),
        ([units], False, ["serves", "loading"]),
        # Units of a host that failed meanwhile may be anything.
        ([units], True, [None, None]),
        ([units, lambda s: s.touched("gpu1")], False, [None, None]),
        ([units, lambda s: s.touched("gpu1", ["a"])], False, [None, "loading"]),
        ([units, lambda s: s.touched("gpu1", ["a"]), units], False, ["serves", "loading"]),
        ([lambda s: s.touched("gpu1", ["a"]), lambda s: s.proved(["gpu1/a"])], True,
         ["serves", None]),
        ([units, lambda s: s.proved(["gpu1/a"], serves=False)], False, ["down", "loading"]),
        ([units, lambda s: s.proved(["gpu2/a"], serves=False)], False, ["serves", "loading"]),
        ([lambda s: s.checked([completion("pass")])], True, ["serves", None]),
        ([units, lambda s: s.checked([completion("fail")])], False, ["down", "loading"]),
        ([units, lambda s: s.checked([completion("skipped")])], False, ["serves", "loading"]),
        ([units, lambda s: s.proved(["gpu1/a"]), lambda s: s.checked([UNANSWERED])], True,
         [None, None]),
    ],
)  # fmt: skip
def test_the_last_sight_counts(
    steps: list[Callable[[Seen], None]], failed: bool, sights: list[Sight | None]
):
    seen = Seen()
    for step in steps:
        step(seen)
    assert [seen.of("gpu1", name, failed) for name in "ab"] == sights
