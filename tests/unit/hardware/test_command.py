"""`python -m roles.hardware read`: files that are none are refused, none of them is waited for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from roles.hardware.__main__ import main

ROOT = Path(__file__).parents[3]


def make_huge(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(3 * 2**30)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (os.mkfifo, "is a named pipe; name a regular file"),
        (Path.mkdir, "is a folder; name a regular file"),
        (lambda file: file.symlink_to("nowhere"), "is a link that leads nowhere"),
        (lambda file: file.symlink_to("/dev/zero"), "is a device; name a regular file"),
        (make_huge, "is larger than 16 MiB"),
        (lambda file: None, "is not there: create it"),
    ],
)
def test_what_is_no_file_harms_no_other(
    make: Callable[[Path], object],
    fault: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    good = next((ROOT / "tests/data/gpu-outputs/dmesg").iterdir())
    make(tmp_path / "out")
    assert main(["read", "--kind", "dmesg", str(tmp_path / "out"), str(good)]) == 1
    printed = capsys.readouterr()
    assert f"{tmp_path / 'out'} {fault}" in printed.err
    assert str(good) in printed.out and len(printed.out.splitlines()) == 1
