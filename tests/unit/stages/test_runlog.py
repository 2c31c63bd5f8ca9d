"""The log of a run: whole, harmless to read, its owner's alone, and one of at most so many."""

import stat
from pathlib import Path

import pytest

from roles.stages.runlog import LOGS_KEPT, RunLog, harmless

RUN = "20261129T160312Z-4f2a"


def test_what_comes_before_the_file_is_in_it_too(tmp_path: Path):
    log = RunLog()
    log.write("early\n")
    log.open(tmp_path / "reports", RUN, [])
    log.write("late\n")
    file = tmp_path / "reports" / f"{RUN}.log"
    assert log.path == file
    assert file.read_text() == "early\nlate\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("\x1b[31mred\x1b[0m\n", "red\n"),
        ("a\tb", "a\tb"),
        ("over\rwritten \x07", "over\\x0dwritten \\x07"),
        ("\x1b]0;title", "\\x1b]0;title"),
        ("key sk-1234567 said", "key ***** said"),
    ],
)
def test_nothing_in_it_moves_a_cursor_or_is_secret(text: str, written: str):
    assert harmless(text, ["sk-1234567"]) == written


def test_secrets_from_before_the_file_are_hidden(tmp_path: Path):
    log = RunLog()
    log.write("sk-1234567\n")
    log.open(tmp_path, RUN, ["sk-1234567", ""])
    assert log.path is not None and log.path.read_text() == "*****\n"


def test_nobody_is_led_to_another_file(tmp_path: Path):
    (tmp_path / f"{RUN}.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        RunLog().open(tmp_path, RUN, [])
    assert not (tmp_path / "elsewhere").exists()


def test_the_oldest_logs_go_and_nothing_else(tmp_path: Path):
    old = [tmp_path / f"20250101T{number:06}Z-0000.log" for number in range(LOGS_KEPT + 2)]
    others = [tmp_path / name for name in ("report.json", "notes.log")]
    for path in (*old, *others):
        path.write_text("")
    RunLog().open(tmp_path, RUN, [])
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {path.name for path in (*old[3:], *others)} | {f"{RUN}.log"}
