"""The script that checks an adapter's files on a host, run for real."""

import subprocess
from pathlib import Path

import pytest

from roles.engine.adapters import begin_script, end_script, incoming
from roles.host.paths import ADAPTERS
from roles.models import read_adapter
from tests.adapters import peft


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_only_files_that_came_whole_take_their_place(tmp_path: Path, damaged: bool):
    adapter = read_adapter(peft(tmp_path / "here", rank=1))
    there = tmp_path / "there"

    def run(script: str) -> int:
        return subprocess.run(["sh", "-c", script.replace(ADAPTERS, str(there))]).returncode

    # What a run that was cut off has left is removed.
    new = Path(incoming(adapter).replace(ADAPTERS, str(there)))
    new.mkdir(parents=True)
    (new / "rest").write_text("x")
    assert run(begin_script(adapter)) == 0
    for path, _ in adapter.files:
        (new / path.name).write_bytes(path.read_bytes()[damaged:])
    assert (run(end_script(adapter)) == 0) is not damaged
    place = there / adapter.digest
    assert place.exists() is not damaged
    if not damaged:
        assert sorted(one.name for one in place.iterdir()) == sorted(
            path.name for path, _ in adapter.files
        )
        assert {oct(one.stat().st_mode & 0o777) for one in place.iterdir()} == {"0o644"}
