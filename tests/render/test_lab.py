"""What of the lab itself can be shown without booting a host."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import cgroups, gguf, hosts
from tests.lab.gpu import driver, nvidia_smi

LAB = Path(__file__).parents[1] / "lab"


def test_a_session_that_ends_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, pids in (("host", "1\n2\n"), ("host/session", "3\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").write_text(pids)
    # Seen in the folder, and gone once it is read.
    (tmp_path / "host/ended").mkdir()
    (tmp_path / "host/ended/cgroup.procs").symlink_to(tmp_path / "gone")
    monkeypatch.setattr(cgroups, "_tops", lambda: [tmp_path])
    assert cgroups.processes("host") == {1, 2, 3}


def test_ctrl_c_leaves_the_last_word_to_the_command_that_runs():
    """Ctrl-C goes to the whole group; pyinfra then closes with its verdict and ends with 130."""
    command = (
        "import sys, time\ntry:\n print('runs', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n time.sleep(1); print('verdict'); sys.exit(130)"
    )
    lab = (
        "import sys; from tests.lab import __main__ as lab; "
        "lab.hosts.network.inside = lambda line: line; "
        "sys.exit(lab.main(['run', '--', sys.executable, '-c', sys.argv[1]]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", lab, command],
        cwd=LAB.parents[1],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "runs\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "verdict\n"
    assert process.returncode == 130


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_host_that_goes_by_itself_can_lose_its_power(ended: int, monkeypatch: pytest.MonkeyPatch):
    cleared: list[str] = []
    monkeypatch.setattr(hosts, "running", lambda: {"gpu1": True})
    monkeypatch.setattr(hosts, "outer_pid", lambda name, pid: ended)
    monkeypatch.setattr(cgroups, "end", cleared.append)
    hosts.power_off("gpu1")
    assert cleared == ["gpu1"]


def test_a_server_listens_though_it_closes_something_meanwhile(monkeypatch: pytest.MonkeyPatch):
    listdir = os.listdir
    # Listed, and closed once it is read.
    monkeypatch.setattr(driver.os, "listdir", lambda folder: ["999999", *listdir(folder)])
    with socket.create_server(("127.0.0.1", 0)):
        assert driver.listens(os.getpid())


def test_threads_that_end_meanwhile_have_no_times(ended: int, monkeypatch: pytest.MonkeyPatch):
    listdir = os.listdir
    monkeypatch.setattr(driver.os, "listdir", lambda folder: [*listdir(folder), "999999"])
    assert str(os.getpid()) in driver.run_times([ended, os.getpid()])


@pytest.mark.parametrize("delay", [None, "", "0.01\n"])
def test_a_delay_of_a_boot_can_be_taken_back_at_any_moment(delay: str | None, tmp_path: Path):
    script = (LAB / "boot-host.sh").read_text()
    wait = next(line for line in script.splitlines() if "sleep " in line and "boot-delay" in line)
    (tmp_path / "firmware").mkdir()
    if delay is not None:
        (tmp_path / "firmware/boot-delay").write_text(delay)
    subprocess.run(["sh", "-euc", f"disk={tmp_path}\n{wait}"], check=True)


def process(pid: int, title: str, visible: str | None = None) -> driver.Process:
    return driver.Process(pid, 1, title, visible)


RPC = [
    process(7, "/x/ggml-rpc-server -H 127.0.0.2 -p 1"),
    process(8, "ggml-rpc-server -H 127.0.0.3 -p 2"),
]


@pytest.mark.parametrize(
    ("arguments", "visible", "works"),
    [
        ("", None, {0: 9, 1: 9}),
        ("", "1", {1: 9}),
        (" --rpc 127.0.0.2:1,127.0.0.3:2", "0,1", {0: 7, 1: 8}),
        (" --rpc 127.0.0.3:2", "1", {1: 8}),
        (" --rpc 127.0.0.4:9", "1", {1: 0}),
    ],
)
def test_a_llama_server_holds_the_gpus_that_it_sees(
    arguments: str,
    visible: str | None,
    works: dict[int, int],
    monkeypatch: pytest.MonkeyPatch,
):
    engine = process(9, f"/opt/llama-server -m tiny.gguf{arguments}", visible)
    known = {each.pid: each for each in [*RPC, engine]}
    monkeypatch.setattr(driver, "processes", lambda: known)
    profile = json.loads((LAB / "profiles/rtx-4090-3090.json").read_text())
    found = driver.holders(profile)
    assert {holder.gpu: holder.measured for holder in found} == {k: [v] for k, v in works.items()}
    assert {holder.pid for holder in found} == {9}


def test_cards_of_one_host_can_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copy(LAB / "profiles/rtx-4090-3090.json", tmp_path / "profile.json")
    (tmp_path / "faults.json").write_text("{}")
    monkeypatch.setattr(nvidia_smi, "STATE", tmp_path)
    gpus = nvidia_smi.Gpus()
    monkeypatch.setattr(gpus, "live", lambda wanted="all": {"processes": [], "utilization": [0, 0]})
    rows = [gpus.row(index) for index in range(2)]
    assert [row["name"][-8:] for row in rows] == ["RTX 4090", "RTX 3090"]
    assert [row["memory.total [MiB]"] for row in rows] == ["24564 MiB", "24576 MiB"]
    assert [row["compute_cap"] for row in rows] == ["8.9", "8.6"]
    assert [row["memory.free [MiB]"] for row in rows] == ["24131 MiB", "24259 MiB"]


@pytest.mark.parametrize("layers", [2, 100])
def test_the_gguf_is_the_same_each_time_and_whole(layers: int):
    content = gguf.content(layers)
    assert content == gguf.content(layers)
    assert content[:8] == b"GGUF\x03\0\0\0"
    shapes = [shape for _, shape in gguf.tensors(layers)]
    data = sum(math.prod(shape) * (4 if len(shape) == 1 else 2) for shape in shapes)
    assert data < len(content) < data + 15_000 + 64 * len(shapes)
