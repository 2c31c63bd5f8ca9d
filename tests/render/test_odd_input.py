"""Commands given what they cannot read: each ends soon, with a status and one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINE = json.dumps(
    {
        "id": "a",
        "model": "Qwen/Qwen3-8B",
        "host": {"gpus": [{"name": "NVIDIA L40S"}]},
    }
)


def run(command: str, *, stdin: bytes | None = b"", **more: str) -> tuple[int, str, str]:
    """Run a shell command in which `python` is this one; its status, stdout and stderr."""
    done = subprocess.run(
        ["sh", "-c", command.replace("python", sys.executable, 1)],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        timeout=20,
        env={**os.environ, **more},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "config").mkdir()
    os.mkfifo(tmp_path / "config" / "config.json")
    return tmp_path


READ = "python -m roles.models read"
OUTPUTS = "python -m roles.hardware read --kind topo"
PLAN = "python -m roles.topology plan"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"{READ} ODD/config", ("config.json is a named pipe", "name a regular file")),
        (f"{READ} ODD/pipe.gguf", ("pipe.gguf is a named pipe",)),
        (f"{OUTPUTS} ODD/pipe", ("pipe is a named pipe",)),
        (f"{OUTPUTS} - <&-", ("stdin is closed",)),
        (f"{OUTPUTS} - </dev/zero", ("stdin has more than 16 MiB",)),
        (f"{PLAN} <&-", ("stdin is closed",)),
        (f"{PLAN} </dev/null", ("stdin has no line", "give one JSON object a line")),
        (f"{PLAN} --explain <&-", ("stdin is closed",)),
        (f"{PLAN} --explain </dev/null", ("stdin has no line", "give one JSON object a line")),
        (f"{PLAN} </dev/zero", ("line 1 is longer than",)),
        (f"{PLAN} --schema >/dev/full", ("stdout", "No space left")),
        (f"{PLAN} --schema >&-", ("stdout is closed",)),
        ("python -m roles.topology fleet inventories/local.py >/dev/full", ("No space left",)),
        ("python -m roles.topology fleet ODD", ("is a folder",)),
        ("python -m roles.topology fleet ODD/pipe", ("is no regular file",)),
        ("python -m roles.topology fleet 'inventories/*.py'", ("there is no such inventory file",)),
    ],
)
def test_what_cannot_be_read_is_refused(command: str, message: tuple[str, ...], odd: Path):
    status, stdout, stderr = run(command.replace("ODD", str(odd)))
    assert status == 1 and stdout == ""
    assert [part for part in message if part not in stderr] == [], stderr
    first, *more = stderr.splitlines()
    assert first and more in ([], ["Nothing was done."])


@pytest.mark.parametrize(
    "command",
    [
        f"{PLAN} --schema | head -c 10",
        "python -m roles.topology predict --schema | true",
        "python -m roles.topology fleet inventories/local.py | true",
        f"{OUTPUTS} --help | true",
    ],
)
def test_a_reader_that_has_enough_is_no_error(command: str):
    assert run(command)[2] == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "\xff"}', "line 2 is no UTF-8 text"),
        (b'{"id": "\\udc00"}', "line 2 is no UTF-8 text"),
        (b"[" * 100_000, "line 2 is nested deeper"),
        (b'{"a": ' + b"1" * 5000 + b"}", "line 2 has a number of thousands of digits"),
        (b'{"id": "b", "id": "c"}', "line 2 has the key 'id' twice"),
        (b"nonsense \x00", "line 2 is no JSON"),
    ],
)
def test_a_line_that_cannot_be_read_harms_no_other(line: bytes, message: str):
    status, stdout, stderr = run(PLAN, stdin=b"\n".join((LINE.encode(), line, LINE.encode())))
    first, wrong, last = map(json.loads, stdout.splitlines())
    assert (status, stderr) == (1, "")
    assert first == last and "error" not in first
    assert message in wrong["error"] and "give one JSON object a line" in wrong["error"]


def test_a_terminal_of_another_encoding_is_no_error():
    line = json.dumps({**json.loads(LINE), "id": "Ä"}).encode()
    status, stdout, stderr = run(PLAN, stdin=line, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (status, stderr) == (0, "") and '"id": "\\xc4"' in stdout


PROGRAM = """
from roles.fleet.inventory import check
gpu_hosts = [("10.0.0.1", {"llm": {"gpus": "1x NVIDIA L40S"}})]
all = (gpu_hosts, {"llm": {"services": [{"name": "qwen", "model": "Qwen/Qwen3-8B",
    "max_model_len": 8192, "single_endpoint": True, "route": {"api_key_file": "KEY"}}]}})
check(__file__)
"""


def test_a_damaged_saved_plan_stops_before_contact(tmp_path: Path):
    inventory, plan = tmp_path / "site.py", tmp_path / "plans" / "site.yaml"
    (tmp_path / "key").write_text("k" * 32)
    (tmp_path / "key").chmod(0o600)
    inventory.write_text(PROGRAM.replace("KEY", str(tmp_path / "key")))
    plan.parent.mkdir()
    plan.touch()
    for command in (
        f"python -m roles.topology fleet {inventory}",
        f"python -m pyinfra {inventory} deploys/llm.py --dry",
    ):
        status, _, stderr = run(command)
        assert status == 1 and "plans/site.yaml is empty; save it again with --save" in stderr
        assert "Traceback" not in stderr and "Connecting" not in stderr
    status, stdout, stderr = run(f"python -m roles.topology fleet {inventory} --save")
    assert status == 0 and f"saved in {plan}" in stdout, stderr
    assert [path.name for path in plan.parent.iterdir()] == ["site.yaml"]
