import os
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from roles.declaration import DeclarationError
from roles.declaration.recordings import (
    record,
    recorded,
    recording_of,
    saved_plan,
    saved_plan_of,
    write_whole,
)
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
        record(file, {f"{name}-{number}": HOST})


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


def write(content: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(content)


def make_huge(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(3 * 2**30)


# Aliases that would be some thousand million values.
BOMB = b"a0: &a0 [x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 10)
)
# What lies where a file beside the inventory should be, and what its error says.
NO_FILE: list[tuple[Callable[[Path], object], str]] = [
    (Path.mkdir, "is a folder; name a regular file"),
    (os.mkfifo, "is a named pipe; name a regular file"),
    (lambda file: file.symlink_to("nowhere"), "is a link that leads nowhere; correct or remove it"),
    (lambda file: file.symlink_to("/dev/zero"), "is a device; name a regular file"),
    (lambda file: file.symlink_to(file.name), "cannot be read"),
    (make_huge, "is larger than 32 MiB"),
    (write(b"\xff\xfea: 1"), "is no UTF-8 text"),
    (write(b"a: [1\n"), "is no YAML"),
    (write(b"\0"), "is no YAML"),
    (write(b"a: !!python/object:os.system x\n"), "is no YAML"),
    (write(b"a: {}\n---\nb: {}\n"), "is no YAML"),
    (write(b"[" * 100_000), "is no YAML: exceeded maximum nesting depth"),
    (write(b"a: " + b"[" * 100 + b"]" * 100), "nested deeper than 64 levels"),
    (write(BOMB), "aliases written out"),
    (write(b"a: {b: &b {c: *b}}\n"), "nested deeper than 64 levels"),
    (write(b"a: 2026-99-99\n"), "has a value that cannot be read"),
    (write(b"a: " + b"9" * 5000 + b"\n"), "has a value that cannot be read"),
    (write(b"a: {gpus: [], gpus: []}\n"), "has gpus twice"),
    (write(b"a: {hosts: {h: {s-0: {port: 1, port: 2}}}}\n"), "has port twice"),
]


@pytest.mark.parametrize(("make", "message"), NO_FILE)
@pytest.mark.parametrize(
    ("read", "place", "remedy"),
    [
        (recorded, recording_of, "record it anew: deploys/discover.py"),
        (saved_plan, saved_plan_of, "save it again with --save"),
    ],
)
def test_a_file_beside_the_inventory_that_is_none(
    read: Callable[[Path], object],
    place: Callable[[Path], Path],
    remedy: str,
    make: Callable[[Path], object],
    message: str,
    tmp_path: Path,
):
    file = place(tmp_path / "site.py")
    file.parent.mkdir()
    make(file)
    with pytest.raises(DeclarationError) as error:
        read(tmp_path / "site.py")
    (problem,) = error.value.problems
    assert problem.startswith(f"{file} ") and message in problem and remedy in problem


@pytest.mark.parametrize("content", ["version: 2\na: {gpus: []}\n", "a: []\n", "a:\n", "a: text\n"])
def test_a_recording_of_another_form_is_told_by_its_entry(tmp_path: Path, content: str):
    file = recording_of(tmp_path / "site.py")
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(DeclarationError, match=r"(version|a): is no host's hardware; delete"):
        recorded(tmp_path / "site.py")


def test_files_that_are_not_there_are_no_error(tmp_path: Path):
    assert recorded(tmp_path / "site.py") == {} and saved_plan(tmp_path / "site.py") is None


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "site.yaml").mkdir()
    with pytest.raises(ValueError, match=r"site\.yaml cannot be written: Is a directory"):
        write_whole(tmp_path / "site.yaml", "a: 1\n")
    assert [path.name for path in tmp_path.iterdir()] == ["site.yaml"]
