"""Why a replica does not serve: the log of the start that failed first, and where there is more."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from roles.engine.llama_cpp import deployment as llama_cpp
from roles.engine.ollama import deployment as ollama
from roles.engine.sglang import start as sglang
from roles.engine.vllm import start as vllm
from roles.host import await_serving, serving
from roles.host.serving import (
    LOG_LINES,
    PROGRESS,
    LaunchError,
    last_phase,
    log_excerpt,
    wait,
)
from tests.unit.launch.stand_in import Reply, chat_engine, engine, send

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
said = {message}
for start, text in said.items():
    if any(one.endswith("=" + start) for one in sys.argv) or "-u" in sys.argv:
        print(text)
"""
ROOT_CAUSE = "AssertionError: shape"


@pytest.fixture
def fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def failed(**message: str) -> str:
        """How the failure of a unit whose starts logged that is told."""
        texts = {"systemctl": SYSTEMCTL, "journalctl": JOURNALCTL.format(message=message)}
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


@pytest.mark.parametrize("may_restart", [True, False])
def test_parts_that_are_put_back_restart_until_all_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_restart: bool
):
    # Each look finds one more restart.
    program = f"""#!{sys.executable}
import pathlib, sys
count = pathlib.Path(sys.argv[0]).with_name("count")
number = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (number + 1))
print(f"ActiveState=active\\nNRestarts={{number}}\\nResult=success\\nExecMainStatus=0")
print("InvocationID=a")
"""
    for name, text in (("systemctl", program), ("journalctl", f"#!{sys.executable}\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    replica = {"name": "chat-0", "port": 9, "model": "m", "may_restart": may_restart}
    why = "no completion within 2 s" if may_restart else "its unit failed .* restarts"
    with pytest.raises(LaunchError, match=why):
        wait(replica, "k", 2)


def test_a_replica_that_embeds_serves_once_it_has_a_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "systemctl").write_text(f"#!{sys.executable}\n{ACTIVE}")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with engine(send(200, '{"model": "m", "data": [{"embedding": [0.5]}]}')) as url:
        replica = {"name": "search-0", "port": int(url.rpartition(":")[2]), "model": "m"}
        wait(replica | {"task": "embed"}, "k", 30)


@pytest.mark.parametrize(
    ("kind", "log", "at"),
    [
        (vllm, "", ""),
        (vllm, "INFO 10-18 [cpu_model_runner.py:68] Starting to load model /m...", "load"),
        (vllm, "\rLoading safetensors checkpoint shards:   0% Completed | 0/8 [00:00<?, ?it/s]",
         "load 0%"),
        (vllm, "\rLoading safetensors checkpoint shards:  50% Completed | 4/8 [00:00<?]\n"
         "\rLoading safetensors checkpoint shards:  63% Completed | 5/8 [00:10<00:06, 2.1s/it]\n",
         "load 63%"),
        (vllm, "Loading pt checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 6.04it/s]\n"
         "(EngineCore_DP0 pid=1) INFO [default_loader.py:267] Loading weights took 15.27 seconds",
         "weights are loaded"),
        (vllm, "Loading weights took 15.27 seconds\nINFO [backends.py:548] Using cache directory: "
         "/c for vLLM's torch.compile\nINFO Dynamo bytecode transform time: 6.32 s", "compile"),
        (vllm, "torch.compile took 9 s in total\nINFO GPU KV cache size: 2,175,276 tokens",
         "warm up"),
        (vllm, "GPU KV cache size: 1 tokens\nCapturing CUDA graphs (decode, FULL):  71%|█| 5/7",
         "capture CUDA graphs"),
        (vllm, "no percentage of any loading", ""),
        (llama_cpp, "srv    load_model: loading model '/m.gguf'\nload_tensors: ....", "load"),
        (llama_cpp, "srv load_model: loading model '/m.gguf'\ncommon_init_from_params: warming up "
         "the model with an empty run - please wait ... (--no-warmup to disable)", "warm up"),
        (sglang, "Load weight begin. avail mem=16.34 GB\n"
         "Multi-thread loading shards:  63% Completed | 5/8 [00:10<00:06]", "load 63%"),
        (sglang, "Load weight end. elapsed=0.28 s\nCapture decode CUDA graph begin. backend=full",
         "capture CUDA graphs"),
        (ollama, "pulling 0123456789ab 12%\npulling 0123456789ab 63%", "fetch the model 63%"),
        (ollama, "read the file 100%\nload the model", "load"),
    ],
)  # fmt: skip
def test_the_engines_log_says_what_a_start_is_at(kind: ModuleType, log: str, at: str):
    phases = [(one.pattern, one.words) for one in kind.PHASES]
    assert last_phase(log, phases) == at


@pytest.mark.parametrize("filler", ["loading ", "Loading a: ", "100% Completed", "a", "\n"])
@pytest.mark.parametrize("kind", [vllm, sglang, llama_cpp, ollama])
def test_a_hostile_log_is_read_in_a_moment(kind: ModuleType, filler: str):
    phases = [(one.pattern, one.words) for one in kind.PHASES]
    start = time.monotonic()
    last_phase((filler * serving.LOG_BYTES)[: serving.LOG_BYTES], phases)
    assert time.monotonic() - start < 2


def loading(times: int) -> Reply:
    """An engine that listens from its begin, and is not ready so many times."""
    asked = iter(range(times))

    def reply(handler: Any, body: dict[str, Any]) -> None:
        busy = next(asked, None) is not None
        (send(503, "Loading model") if busy else chat_engine())(handler, body)

    return reply


@pytest.mark.parametrize(
    ("more", "phases_printed"),
    [
        ({}, ["load", "first token", "load 7 of 9", "serves"]),
        # Of an engine that listens and says nothing the log alone tells.
        ({"listens_first": True}, ["load", "load 7 of 9", "serves"]),
    ],
)
def test_who_listens_and_is_not_ready_is_loading_still(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    more: dict[str, Any],
    phases_printed: list[str],
):
    texts = {"systemctl": ACTIVE, "journalctl": "print('loading 7')"}
    for name, text in texts.items():
        (tmp_path / name).write_text(f"#!{sys.executable}\n{text}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(serving, "TASK", {"progress": True})
    monkeypatch.setattr(serving, "READ_S", 0)
    phases = [["loading ([0-9])", "load {} of 9"]]
    with engine(loading(3)) as url:
        port = int(url.rpartition(":")[2])
        wait({"name": "chat-0", "port": port, "model": "m", "phases": phases} | more, "k", 30)
    printed = capfd.readouterr().out.splitlines()
    assert [line.removeprefix(f"{PROGRESS}chat-0 ") for line in printed] == phases_printed


def test_replicas_that_start_together_share_one_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    message = "ActiveState=active\nNRestarts=0\nResult=success\nExecMainStatus=0\nInvocationID=a"
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\necho '{message}'\n")
    (tmp_path / "journalctl").write_text("#!/bin/sh\n")
    for name in ("systemctl", "journalctl"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(serving, "TASK", {"progress": True})
    manifest = {f"chat-{n}": {"name": f"chat-{n}", "port": 9, "model": "m"} for n in range(4)}
    monkeypatch.setattr(await_serving, "read_manifest", lambda: manifest)
    monkeypatch.setattr(await_serving, "key_of", lambda replica: "k")
    task = {"names": sorted(manifest), "start_timeout_s": 2}
    monkeypatch.setattr(await_serving, "TASK", task)
    began = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        await_serving.main()
    assert time.monotonic() - began < len(manifest) * 2
    phases = capfd.readouterr().out
    for name in manifest:
        assert f"{name} does not serve: no completion within 2 s" in str(ended.value)
        assert f"{PROGRESS}{name} load\n" in phases
        assert f"{PROGRESS}{name} does not serve: no completion within 2 s\n" in phases


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
