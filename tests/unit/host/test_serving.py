"""Why a replica does not serve: the log of the start that failed first, and where there is more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from roles.host import serving
from roles.host.serving import LOG_LINES, PROGRESS, LaunchError, log_excerpt, wait
from tests.unit.launch.stand_in import chat_engine, engine

# A unit that failed once, was started again, and failed for good: its starts are a and b.
SYSTEMCTL = """
import pathlib, sys
asked = pathlib.Path(sys.argv[0]).with_name("asked")
start = "b" if asked.exists() else "a"
asked.touch()
print(f"ActiveState=failed\\nNRestarts=1\\nResult=exit-code\\nExecMainStatus=1\\nInvocationID={start}")
"""
JOURNALCTL = """
import os
import subprocess
import sys
said = {said}
for start, text in said.items():
    if any(one.endswith("=" + start) for one in sys.argv) or "-u" in sys.argv:
        print(text)
"""
ROOT_CAUSE = "AssertionError: shape"


@pytest.fixture
def fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def failed(**said: str) -> str:
        """How the failure of a unit whose starts logged that is told."""
        texts = {"systemctl": SYSTEMCTL, "journalctl": JOURNALCTL.format(said=said)}
        for name, text in texts.items():
            (tmp_path / name).write_text(f"#!{sys.executable}\n{text}")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        with pytest.raises(LaunchError) as error:
            wait({"name": "chat-0", "port": 9, "model": "m"}, "sk-secret", 5)
        assert error.value.replicas == ("chat-0",)
        assert error.value.problem.startswith("chat-0 does not serve: its unit failed")
        return str(error.value)

    return failed


def test_the_first_start_says_why(fails):
    text = fails(a=f"Starting…\n{ROOT_CAUSE} sk-secret", b="Starting…")
    assert f"{ROOT_CAUSE} ***" in text
    assert "last log lines of llm-engine@chat-0.service, its first start" in text
    assert "journalctl -u llm-engine@chat-0.service --no-pager" in text.splitlines()[-1]


def test_a_first_start_without_a_word_leaves_it_to_the_last(fails):
    text = fails(a="", b=ROOT_CAUSE)
    assert ROOT_CAUSE in text and "first start" not in text


def test_the_first_errors_stand_before_the_last_lines():
    noise = [f"line {number}" for number in range(LOG_LINES)]
    cause = ["ValueError: a", "ValueError: a", "RuntimeError: b"]
    assert log_excerpt([*cause, "so on", *noise]) == [
        "ValueError: a",
        "RuntimeError: b",
        "…",
        *noise,
    ]
    assert log_excerpt(noise) == noise
    assert serving.ERROR.search("torch.OutOfMemoryError: CUDA out of memory")


ACTIVE = (
    'print("ActiveState=active\\nNRestarts=0\\nResult=success\\nExecMainStatus=0\\nInvocationID=a")'
)


def test_what_a_replica_is_at_is_said_where_the_task_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "systemctl").write_text(f"#!{sys.executable}\n{ACTIVE}")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with engine(chat_engine()) as url:
        replica = {"name": "chat-0", "port": int(url.rpartition(":")[2]), "model": "m"}
        wait(replica, "k", 30)
        assert capfd.readouterr().out == ""
        monkeypatch.setattr(serving, "TASK", {"progress": True})
        wait(replica, "k", 30)
    phases = ("load", "first token", "serves")
    assert capfd.readouterr().out.splitlines() == [f"{PROGRESS}chat-0 {one}" for one in phases]


def test_nobody_has_to_listen():
    """A connection that breaks must not end what moves replicas."""
    program = (
        "import sys; from roles.host import serving; serving.TASK = {'progress': True}; "
        "serving.report_phase('a', 'load'); serving.report_phase('a', 'load'); "
        "sys.stderr.write('goes on')"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert done.stderr == "goes on"
