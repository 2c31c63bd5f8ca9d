"""What of the lab itself can be shown without booting a host."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.lab import cgroups, hosts
from tests.lab.gpu import driver

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
