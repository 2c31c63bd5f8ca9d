"""What a run says that it will change of a host's replicas."""

from typing import Any

import pytest

from roles.launch import Change, replica_changes
from roles.plan import ReplicaChange, grouped

NOW = {
    "name": "a", "service": "s", "engine": "vllm", "version": "vllm-2", "model": "m", "port": 8001,
    "gpus": [0, 1], "shape": "PP2", "max_model_len": 8192,
}  # fmt: skip
MOVE = Change("move", "a", "runs from other settings")
RETIRE = Change("retire", "a", "is not in the plan")
START = Change("start", "a", "is failed")


def changes_of(change: Change, before: dict[str, Any] | None) -> list[ReplicaChange]:
    manifest = {"a": before} if before is not None else {}
    return replica_changes("gpu1", [change], manifest, {"a": NOW})


@pytest.mark.parametrize(
    ("change", "before", "words", "laid_out"),
    [
        (
            MOVE,
            NOW | {"shape": "TP2", "max_model_len": 4096},
            "TP2 → PP2; max_model_len 4096 → 8192",
            True,
        ),
        (MOVE, NOW | {"gpus": [0]}, "GPUs 0 → 0,1", True),
        (MOVE, NOW | {"version": "vllm-1"}, "vllm-1 → vllm-2", False),
        (MOVE, NOW, "runs from other settings", False),
        # An older deploy's manifest does not say the shape.
        (MOVE, {"name": "a", "port": 8002, "gpus": [0, 1]}, "port 8002 → 8001", False),
        (MOVE, NOW | {"settings": {}}, "runs from other settings", False),
        (MOVE, NOW | {"settings": []}, "runs from other settings", False),
        (MOVE, None, "runs from other settings", False),
        (START, None, "new: PP2 on GPUs 0,1, port 8001", True),
        (START, NOW, "is failed", False),
        (START, NOW | {"port": 8002}, "port 8002 → 8001; is failed", False),
        (RETIRE, NOW, "goes away: it is not in the plan", False),
        (Change("shared", "/etc/x", "differs"), NOW, None, False),
    ],
)  # fmt: skip
def test_a_change_is_told_by_what_differs(
    change: Change, before: dict[str, Any] | None, words: str | None, laid_out: bool
):
    expected = [] if words is None else [ReplicaChange("gpu1/a", words, laid_out)]
    assert changes_of(change, before) == expected


def test_settings_that_differ_are_named():
    digests = {"max-num-seqs": "1", "VLLM_PORT": "2"}
    before = NOW | {"settings": {"max-num-seqs": "0", "VLLM_PORT": "2", "dtype": "4"}}
    (change,) = replica_changes("gpu1", [MOVE], {"a": before}, {"a": NOW | {"settings": digests}})
    assert change == ReplicaChange("gpu1/a", "runs from other settings: dtype, max-num-seqs")
    (change,) = replica_changes("gpu1", [MOVE], {"a": before}, {"a": before})
    assert change.message == "runs from other settings: keys or secrets"
    hostile = NOW | {"settings": {"\x1b[31m" + "x" * 999: "1"}}
    (change,) = replica_changes("gpu1", [MOVE], {"a": hostile}, {"a": NOW | {"settings": {}}})
    assert change.message.isprintable() and len(change.message) < 100
    many = NOW | {"settings": {f"s{number}": "1" for number in range(10)}}
    (change,) = replica_changes("gpu1", [MOVE], {"a": many}, {"a": NOW | {"settings": {}}})
    assert change.message.endswith("s0, s1, s2, s3, s4, s5, s6, s7, 2 more")


def test_equal_differences_are_one_line():
    changes = [
        ReplicaChange("gpu1/a", "x"),
        ReplicaChange("gpu1/b", "y"),
        ReplicaChange("gpu2/a", "x"),
    ]
    assert grouped(changes) == ["gpu1/a, gpu2/a: x", "gpu1/b: y"]
