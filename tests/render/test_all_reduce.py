"""The host's program: what it checks, and that no rank outlives or stops it; real processes."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from roles.interconnect import all_reduce
from roles.interconnect.all_reduce import WrongResultError, all_reduces, bus_gb_s, outcome, run_test
from roles.interconnect.modes import next_mode


class Numbers:
    """Data of lists, in a group of which every rank sends the same but for its factor.

    `spoil` changes a result, as a broken link does.
    """

    def __init__(self, rank: int, ranks: int, spoil: Any = None):
        self.rank, self.ranks, self.spoil, self.calls = rank, ranks, spoil, 0

    def data(self, size: int, factor: int) -> list[int]:
        return [number % 1021 * factor for number in range(size // 4)]

    def all_reduce(self, data: list[int]) -> None:
        self.calls += 1
        total = self.ranks * (self.ranks + 1) // 2
        data[:] = [number // (self.rank + 1) * total for number in data]
        if self.spoil:
            self.spoil(self, data)

    def same(self, one: list[int], other: list[int]) -> bool:
        return one == other

    def wait(self) -> None:
        pass


@pytest.mark.parametrize("ranks", [2, 8])
def test_right_sums_are_timed(ranks: int):
    assert all_reduces(Numbers(1, ranks), 1, ranks, (16, 4096)) > 0


def one_number(device: Numbers, data: list[int]) -> None:
    data[-1] += 1


def only_large(device: Numbers, data: list[int]) -> None:
    if len(data) > 100:
        data[3] = 0


def only_at_the_end(device: Numbers, data: list[int]) -> None:
    if device.calls > 2 * 2 + all_reduce.TIMED:
        data[:] = [0] * len(data)


def not_reduced(device: Numbers, data: list[int]) -> None:
    data[:] = device.data(len(data) * 4, device.rank + 1)


@pytest.mark.parametrize("spoil", [one_number, only_large, only_at_the_end, not_reduced])
def test_a_wrong_sum_is_seen(spoil: Any):
    with pytest.raises(WrongResultError, match="rank 1 has a wrong sum"):
        all_reduces(Numbers(1, 2, spoil), 1, 2, (16, 4096))


def test_bus_bandwidth_is_that_of_nccl_tests():
    # 64 MiB over two GPUs in 4 ms move once over the link; over eight 1.75 times.
    assert bus_gb_s(2, 2**26, 0.004) == pytest.approx(16.78, abs=0.01)
    assert bus_gb_s(8, 2**26, 0.004) == pytest.approx(29.36, abs=0.01)


def left_over() -> list[str]:
    """Ranks that are still children of this process, be it as zombies."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = file.read_text().partition("(")[2].rpartition(")")
            if name.startswith("link-") and rest.split()[1] == str(os.getpid()):
                found.append(name)
    return found


@pytest.fixture
def ranks_do(monkeypatch: pytest.MonkeyPatch):
    """Let each rank of a test do something; what the test's outcome is, and how long it took."""
    task = {"timeout_s": 1, "visible": "CUDA_VISIBLE_DEVICES", "cpu": True}
    monkeypatch.setattr(all_reduce, "TASK", task)
    monkeypatch.setattr(all_reduce, "GRACE_S", 1)
    monkeypatch.setattr(all_reduce, "reader_is_gone", lambda: False)

    def run(behaviour: Any, p2p: bool = True) -> dict[str, Any]:
        monkeypatch.setattr(all_reduce, "run_rank", behaviour)
        test = {"gpus": [4, 5], "devices": ["4", "GPU-5"], "p2p": p2p}
        return run_test(None, test)

    return run


def works(torch: Any, test: Any, rank: int, folder: str, say: Any) -> None:
    say({"library": "gloo", "ready": True})
    say({"gb_s": 3.0 + rank})


def hangs(torch: Any, test: Any, rank: int, folder: str, say: Any) -> None:
    say({"library": "gloo", "ready": True})
    if rank:
        time.sleep(120)
    say({"gb_s": 3.0})


def hangs_in_start(torch: Any, test: Any, rank: int, folder: str, say: Any) -> None:
    time.sleep(120)


def starts_slowly(torch: Any, test: Any, rank: int, folder: str, say: Any) -> None:
    time.sleep(1.5)
    works(torch, test, rank, folder, say)


def one_is_not_ready(torch: Any, test: Any, rank: int, folder: str, say: Any) -> None:
    if rank:
        time.sleep(120)
    say({"ready": True})
    raise RuntimeError("the other is gone")


def wrong(torch: Any, test: Any, rank: int, folder: str, say: Any) -> None:
    say({"ready": True})
    if rank:
        raise WrongResultError("rank 1 has a wrong sum of 4096 bytes")
    say({"gb_s": 3.0})


def lacks_memory(torch: Any, test: Any, rank: int, folder: str, say: Any) -> None:
    say({"ready": True})
    if rank:
        raise RuntimeError("first\nCUDA out of memory. Tried to allocate 64 MiB.\n")
    time.sleep(120)


def crashes(torch: Any, test: Any, rank: int, folder: str, say: Any) -> None:
    if rank:
        os.kill(os.getpid(), 9)
    time.sleep(120)


def aborts(torch: Any, test: Any, rank: int, folder: str, say: Any) -> None:
    say({"ready": True})
    if rank:
        os.write(2, b"one\nNCCL WARN the last word\n")
        os._exit(6)
    time.sleep(120)


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (works, {"outcome": "works", "gb_s": 3.0, "library": "gloo"}),
        (hangs, {"outcome": "hangs", "detail": "all-reduce not done in 1 s", "library": "gloo"}),
        (
            hangs_in_start,
            {"outcome": "hangs", "detail": "start not done in 3 s", "unready": True},
        ),
        (starts_slowly, {"outcome": "works", "gb_s": 3.0, "library": "gloo"}),
        (
            one_is_not_ready,
            {
                "outcome": "fails",
                "detail": "RuntimeError: the other is gone",
                "memory": False,
                "unready": True,
            },
        ),
        (wrong, {"outcome": "wrong", "detail": "rank 1 has a wrong sum of 4096 bytes"}),
        (
            lacks_memory,
            {
                "outcome": "fails",
                "detail": "RuntimeError: CUDA out of memory. Tried to allocate 64 MiB.",
                "memory": True,
                "unready": False,
            },
        ),
        (crashes, {"outcome": "fails", "detail": "rank 1: ended by signal 9", "unready": True}),
        (
            aborts,
            {"outcome": "fails", "detail": "rank 1: NCCL WARN the last word", "unready": False},
        ),
    ],
)
def test_outcomes(ranks_do: Any, behaviour: Any, expected: dict[str, Any]):
    start = time.monotonic()
    assert ranks_do(behaviour) == {"gpus": [4, 5], "p2p": True, "log": "", **expected}
    assert time.monotonic() - start < 60
    assert left_over() == []


def test_what_a_rank_says_at_its_end_is_heard(ranks_do: Any, monkeypatch: Any):
    waitpid = os.waitpid
    # Each rank ends between two looks at it.
    monkeypatch.setattr(all_reduce.os, "waitpid", lambda pid, how: waitpid(pid, 0))
    assert ranks_do(works)["outcome"] == "works"


def shows_environment(torch: Any, test: Any, rank: int, folder: str, say: Any) -> None:
    names = ("CUDA_VISIBLE_DEVICES", "NCCL_P2P_DISABLE", "NCCL_DEBUG")
    with open(os.environ["NCCL_DEBUG_FILE"].replace("%p", str(os.getpid())), "w") as file:
        file.write("x NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct\nx other\n")
    say({"ready": True})
    with open("/proc/self/comm") as file:
        output = [file.read().strip(), *(os.environ.get(name) for name in names)]
    raise RuntimeError(" ".join(map(str, output)))


def test_ranks_have_their_gpus_and_way_and_leave_the_log(ranks_do: Any, monkeypatch: Any):
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")
    channel = "x NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct\n"
    found = ranks_do(shows_environment)
    assert found["detail"] == "RuntimeError: link-p2p 4,GPU-5 None INFO"
    assert found["log"] == channel * 2
    assert ranks_do(shows_environment, p2p=False)["detail"].endswith("link-nop2p 4,GPU-5 1 INFO")


def test_it_ends_when_nobody_reads_any_more(ranks_do: Any, monkeypatch: Any):
    monkeypatch.setattr(all_reduce, "reader_is_gone", lambda: True)
    with pytest.raises(SystemExit):
        ranks_do(hangs)
    assert left_over() == []


def result(gpus: list[int], p2p: bool, outcome: str = "works") -> dict[str, Any]:
    return {"gpus": gpus, "p2p": p2p, "outcome": outcome}


PAIR = {"gpus": [0, 1], "p2p": True, "also_without_p2p": False}
FOUR = {"gpus": [0, 1, 2, 3], "p2p": True, "also_without_p2p": False}


@pytest.mark.parametrize(
    ("group", "results", "expected"),
    [
        (PAIR, [], True),
        (PAIR, [result([0, 1], True)], None),
        (PAIR, [result([2, 3], True)], True),
        (PAIR, [result([0, 1], True, "hangs")], False),
        (PAIR, [result([0, 1], True, "hangs"), result([0, 1], False, "hangs")], None),
        (PAIR | {"also_without_p2p": True}, [result([0, 1], True)], False),
        (PAIR | {"also_without_p2p": True}, [result([0, 1], True), result([0, 1], False)], None),
        (PAIR | {"p2p": False}, [], False),
        (PAIR | {"p2p": False}, [result([0, 1], False, "hangs")], None),
        # Two of the four hang with P2P: the four are not to try it.
        (FOUR, [result([0, 1], True, "wrong"), result([0, 1], False)], False),
        # Two of them never work.
        (FOUR, [result([0, 1], True, "hangs"), result([0, 1], False, "fails")], None),
        (FOUR, [result([0, 1], True, "hangs")], None),
        (FOUR, [result([0, 1], True)], True),
    ],
)
def test_what_is_measured_next(group: dict[str, Any], results: list, expected: bool | None):
    assert next_mode(group, results) is expected


def test_the_worst_that_a_rank_tells_counts():
    class Rank:
        crashed, number = False, 0

        def __init__(self, **messages: Any):
            self.messages, self.has_outcome = {"ready": True, **messages}, True

    assert outcome([Rank(gb_s=1.0), Rank(gb_s=2.0)])["gb_s"] == 1.0
    assert outcome([Rank(error="E"), Rank(wrong="W")])["outcome"] == "wrong"


def test_gpus_in_use_are_seen_before_torch_is_loaded(monkeypatch: Any, capsys: Any):
    groups = [
        {"gpus": [0, 1], "devices": ["0", "1"], "p2p": True, "also_without_p2p": False},
        {"gpus": [2, 3], "devices": ["GPU-2", "GPU-3"], "p2p": True, "also_without_p2p": False},
    ]
    monkeypatch.setattr(all_reduce, "TASK", {"environment": {}, "known": [], "groups": groups})
    loaded: list[str] = []
    monkeypatch.setattr(all_reduce.importlib, "import_module", loaded.append)
    monkeypatch.setattr(all_reduce, "run_test", lambda torch, test: result(test["gpus"], True))

    def lines(*held: str) -> list[Any]:
        monkeypatch.setattr(sys, "argv", ["-", *held])
        all_reduce.main()
        output = capsys.readouterr().out.splitlines()
        return [json.loads(line.removeprefix(all_reduce.MARK)) for line in output]

    busy, others = {"gpus": [0, 1], "busy": True}, {"gpus": [2, 3], "busy": True}
    assert lines("1", "GPU-2") == [busy, others, {"done": True}]
    assert loaded == []
    assert lines("0,1") == [busy, result([2, 3], True), {"done": True}]
    assert loaded == ["torch", "torch.distributed"]
