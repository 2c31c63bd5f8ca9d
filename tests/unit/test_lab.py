"""What of the lab itself can be shown without booting a host."""

from pathlib import Path

import pytest

from tests.lab import cgroups


def test_a_session_that_ends_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, pids in (("host", "1\n2\n"), ("host/session", "3\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").write_text(pids)
    # Seen in the folder, and gone once it is read.
    (tmp_path / "host/ended").mkdir()
    (tmp_path / "host/ended/cgroup.procs").symlink_to(tmp_path / "gone")
    monkeypatch.setattr(cgroups, "_tops", lambda: [tmp_path])
    assert cgroups.processes("host") == {1, 2, 3}
