"""Sets of files on this machine: written all or not at all, and not twice."""

import getpass
import grp
import os
import subprocess
from pathlib import Path

import pytest

from roles.host import HostFile, archive, changed_files
from roles.host.facts import FileStates
from roles.host.operations import install_script

USER = getpass.getuser()
GROUP = grp.getgrgid(os.getgid()).gr_name


def file(path: Path, content: str, mode: str = "644") -> HostFile:
    return HostFile(str(path), content, mode, USER, GROUP)


def states(*paths: str) -> dict[str, str]:
    command = FileStates().command(paths=list(paths))
    lines = subprocess.check_output(["sh", "-c", command], text=True).splitlines()
    return FileStates().process(lines) if lines else {}


def install(files: list[HostFile], check: str | None = None, leftover: list[str] | None = None):
    script = install_script(files, files, check, leftover or [])
    return subprocess.run(
        ["sh", "-c", script], input=archive(files), text=True, capture_output=True
    )


def test_files_arrive_with_content_mode_and_owner(tmp_path: Path):
    files = [
        file(tmp_path / "a" / 'it\'s "quoted" $x', "one\n"),
        file(tmp_path / "key", "tøken\n", "600"),
    ]
    assert install(files).returncode == 0
    assert changed_files(files, states(*(entry.path for entry in files))) == []
    assert (tmp_path / "key").read_text() == "tøken\n"


def test_a_failed_check_leaves_everything_as_it_was(tmp_path: Path):
    old = file(tmp_path / "site", "good")
    install([old])
    new = [file(tmp_path / "site", "bad"), file(tmp_path / "other", "x")]
    done = install(new, check=f'! grep -q bad "$STAGE{tmp_path}/site"')
    assert done.returncode == 1
    assert "the new files were not installed" in done.stderr
    assert (tmp_path / "site").read_text() == "good"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["site"]


def test_leftovers_go(tmp_path: Path):
    (tmp_path / "old").write_text("x")
    install([file(tmp_path / "new", "y")], leftover=[str(tmp_path / "old")])
    assert [entry.name for entry in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("change", [{"content": "two"}, {"mode": "600"}, {"owner": "nobody"}])
def test_every_difference_counts(tmp_path: Path, change: dict):
    good = file(tmp_path / "a", "one")
    install([good])
    found = states(good.path)
    wanted = HostFile(
        **({"path": good.path, "content": "one", "owner": USER, "group": GROUP} | change)
    )
    assert changed_files([wanted], found) == [wanted]


def test_content_is_never_shown():
    assert "secret" not in repr(HostFile("/x", "secret"))
