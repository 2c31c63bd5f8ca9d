"""The last words of a run: a row a host, and one line that sums it up."""

import pytest

from roles.checks import Ending, HostOutcome, HostVerdict, verdict
from roles.checks.verdict import HEADER, summary_line


def gpu(
    host: str, outcome: HostOutcome, serving: int = 1, unseen: int = 0, step: str = ""
) -> HostVerdict:
    return HostVerdict(host, 1, serving, unseen, outcome, step)


LB = HostVerdict("lb1", 0, 0, 0, "unchanged")


@pytest.mark.parametrize(
    ("rows", "ending", "line"),
    [
        (
            [gpu("gpu1", "unchanged"), gpu("gpu2", "unchanged"), LB],
            "whole",
            "Nothing changed. 2 of 2 replicas serve.",
        ),
        ([gpu("gpu1", "changed"), LB], "whole", "Changed: gpu1. 1 of 1 replica serves."),
        (
            [gpu("gpu1", "FAILED", serving=0), gpu("gpu2", "unchanged")],
            "whole",
            "FAILED: gpu1. 1 of 2 replicas serve.",
        ),
        (
            [gpu("gpu1", "not reached", 0, 1), gpu("gpu2", "not updated")],
            "whole",
            "FAILED, not reached: gpu1. Not updated: gpu2. 1 of 2 replicas serve; of 1 it was not "
            "seen.",
        ),
        (
            [gpu("gpu1", "not finished", 0, 1), gpu("gpu2", "changed")],
            "interrupted",
            "INTERRUPTED. NOT FINISHED: gpu1. Changed: gpu2. 1 of 2 replicas serve; of 1 "
            "it was not seen.",
        ),
        ([gpu("gpu1", "not begun", 0, 1)], "interrupted",
         "INTERRUPTED. The 1 replicas were not looked at."),
        (
            [gpu("gpu1", "not begun")],
            "early",
            "FAILED before anything was changed. 1 of 1 replica serves.",
        ),
        (
            [gpu("gpu1", "not begun"), gpu("gpu2", "left out by --limit", 0, 1)],
            "dry",
            "A dry run: nothing was changed. 1 of 2 replicas serve; of 1 it was not seen.",
        ),
        (
            [HostVerdict("gpu1", 2, 1, 0, "unchanged", loading=1), LB],
            "whole",
            "Nothing changed. 1 of 2 replicas serve; 1 is loading.",
        ),
        (
            [HostVerdict("gpu1", 5, 1, 2, "unchanged", loading=2), LB],
            "dry",
            "A dry run: nothing was changed. 1 of 5 replicas serve; 2 are loading; of 2 it was not "
            "seen.",
        ),
        (
            [gpu("gpu1", "would change"), gpu("gpu2", "unchanged"), LB],
            "dry",
            "A dry run: nothing was changed. Would change: gpu1. 2 of 2 replicas serve.",
        ),
        ([LB], "whole", "Nothing changed."),
    ],
)  # fmt: skip
def test_the_last_line(rows: list[HostVerdict], ending: Ending, line: str):
    assert summary_line(rows, ending) == line


@pytest.mark.parametrize(
    ("row", "replicas"),
    [
        (HostVerdict("h", 2, 2, 0, "unchanged"), "2 / 2"),
        (HostVerdict("h", 2, 0, 2, "not reached"), "? / 2"),
        (HostVerdict("h", 3, 1, 1, "FAILED"), "1 + ? / 3"),
        (HostVerdict("h", 3, 1, 0, "unchanged", loading=2), "1 + 2 loading / 3"),
        (HostVerdict("h", 0, 0, 0, "changed"), "-"),
    ],
)
def test_what_was_not_seen_is_a_question_mark(row: HostVerdict, replicas: str):
    header, line = verdict([row, gpu("seen", "unchanged")]).splitlines()[:2]
    column = header.index(HEADER[1])
    assert line[column:].startswith(f"{replicas} ")


@pytest.mark.parametrize("rows", [[gpu("gpu1", "not reached", 0, 1), LB], [LB]])
def test_where_no_replica_was_seen_there_is_no_column_of_replicas(rows: list[HostVerdict]):
    assert verdict(rows).splitlines()[0].split() == ["HOST", "OUTCOME", "NEXT", "STEP"]


def test_a_row_is_one_line_whatever_a_host_says():
    text = verdict([gpu("gpu1", "FAILED", step="run\x1b[2J\nthis"), LB])
    assert len(text.splitlines()) == 5 and "\x1b" not in text
    assert text.splitlines()[1].endswith("run [2J this")
