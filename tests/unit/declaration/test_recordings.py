from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from roles.declaration.recordings import record
from roles.hardware import read_recording

HOST = {"gpus": [{"name": "NVIDIA L40S", "memory_mib": 46068}]}


def test_other_hosts_stay(tmp_path: Path):
    file = tmp_path / "hardware" / "prod.yaml"
    record(file, {"b": HOST})
    record(file, {"a": HOST})
    assert read_recording(file.read_text()) == {"a": HOST, "b": HOST}


def test_the_same_facts_leave_the_same_file(tmp_path: Path):
    file = tmp_path / "prod.yaml"
    record(file, {"a": HOST, "b": HOST})
    first = file.read_bytes()
    record(file, {"b": HOST})
    assert file.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["prod.yaml"]


def record_ten(file: Path, name: str, gate: Barrier) -> None:
    gate.wait()
    for number in range(10):
        record(file, {f"{name}-{number}": {"gpus": []}})


def test_runs_beside_each_other_lose_nothing(tmp_path: Path):
    file = tmp_path / "prod.yaml"
    # Forks of this process: they need not import anything, and all begin at once.
    forks = get_context("fork")
    gate = forks.Barrier(3)
    runs = [forks.Process(target=record_ten, args=(file, name, gate)) for name in ("a", "b", "c")]
    for run in runs:
        run.start()
    for run in runs:
        run.join(timeout=300)
    assert [run.exitcode for run in runs] == [0, 0, 0]
    assert len(read_recording(file.read_text())) == 30


def test_a_damaged_recording_is_not_overwritten(tmp_path: Path):
    file = tmp_path / "prod.yaml"
    file.write_text("a: {")
    with pytest.raises(ValueError):
        record(file, {"b": HOST})
    assert file.read_text() == "a: {"
