"""What is asked of a host's driver, on this machine: whatever it has, the report is whole."""

import os
import subprocess
from pathlib import Path

import pytest

from roles.driver import facts


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_question_is_answered_here_and_is_read(shell: str, tmp_path: Path):
    path = os.environ["PATH"]
    if shell == "bash":
        # apt-get looks through all packages for seconds, and says the same to any shell.
        (tmp_path / "apt-get").symlink_to("/bin/true")
        path = f"{tmp_path}:{path}"
    command = [shell, "-c", facts.DriverReport().command()]
    env = {**os.environ, "PATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    if "@@@ driver" not in done.stdout:
        pytest.skip("neither root nor sudo here")
    found = facts.DriverReport().process(done.stdout.splitlines())
    assert found.kernel and found.system.id and found.system.arch
