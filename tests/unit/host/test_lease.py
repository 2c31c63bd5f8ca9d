"""A host is held while a run renews its lease, and no longer."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from roles.host.lease import BusyHostError, Lease, Process, hold_script
from roles.watchdog.on_host.files import locked

RUN, OTHER = "20261130T032409Z-4f2a", "20261130T032500Z-0001"


class Holder:
    """Takes the lock of one file, whose leases last a second."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path, self.stack = path, stack

    def take(self, run: str = RUN, renewed_s: float = 0.2) -> Lease:
        process = Process(hold_script(run, str(self.path), 1))
        self.stack.callback(process.close)
        return Lease(process, renewed_s)

    @property
    def is_held(self) -> bool:
        return locked(str(self.path))

    def is_free_within(self, limit_s: float) -> bool:
        end = time.monotonic() + limit_s
        while self.is_held and time.monotonic() < end:
            time.sleep(0.05)
        return not self.is_held


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    with ExitStack() as stack:
        yield Holder(tmp_path / "run", stack)


def renewed(lease: Lease, seconds: float) -> None:
    """Let the renewals go on for a while, as they do within pyinfra."""
    import gevent

    gevent.sleep(seconds)
    assert lease.alive


def test_a_host_is_held_until_the_run_ends(holder: Holder):
    lease = holder.take()
    assert holder.is_held and holder.path.read_text() == RUN + "\n"
    renewed(lease, 2.5)
    assert holder.is_held
    lease.close()
    assert holder.is_free_within(5)


def test_a_second_run_is_told_which_one_holds_it_and_since_when(holder: Holder):
    first = holder.take()
    with pytest.raises(BusyHostError, match=f"{RUN}, begun at 2026-11-30 03:24:09 UTC"):
        holder.take(OTHER)
    assert first.alive and holder.path.read_text() == RUN + "\n"
    first.close()
    assert holder.is_free_within(5)
    assert holder.take(OTHER).alive


def test_a_run_that_renews_nothing_lets_the_host_go(holder: Holder):
    # As where a control machine has no power: the connection stays, and says nothing.
    lease = holder.take(renewed_s=3600)
    assert lease.alive and holder.is_held
    assert holder.is_free_within(10)
    assert not lease.alive


def test_a_connection_that_ends_lets_the_host_go_at_once(holder: Holder):
    process = Process(hold_script(RUN, str(holder.path), 3600))
    Lease(process)
    process.close()
    assert holder.is_free_within(5)


def test_a_host_that_cannot_be_held_is_told(tmp_path: Path):
    with pytest.raises(OSError, match="no lock was taken"):
        Lease(Process(hold_script(RUN, str(tmp_path / "none/run"), 1)))


def test_the_text_of_a_lock_is_not_trusted(tmp_path: Path):
    path = tmp_path / "run"
    path.write_text("\033[1m; reboot")
    with subprocess.Popen(["flock", path, "sleep", "5"]) as other:
        while not locked(str(path)):
            time.sleep(0.05)
        with pytest.raises(BusyHostError, match=r"^another run$"):
            Lease(Process(hold_script(RUN, str(path), 1)))
        other.kill()
