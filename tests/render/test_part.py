"""The parts of a replica over several hosts, as real processes on addresses of this machine: how
they meet, start, and end together. Programs of the shell stand for their engines."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roles.launch.part import GroupError, Part
from roles.launch.parts import program

ADDRESSES = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
# It says when it starts and what it was told, and ends gently.
ENGINE = """trap 'echo ended gently; exit 0' TERM
echo "engine of $RANK_IS at $ENGINE_HOST_IP by $ENGINE_IFNAME"
while :; do sleep 0.05; done
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.2", 0))
        return one.getsockname()[1]


class Parts:
    """Parts of one replica, each in a folder and with a log of its own."""

    def __init__(self, folder: Path, size: int = 2) -> None:
        self.folder, self.addresses, self.port = folder, ADDRESSES[:size], free_port()
        self.running: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        rank: int,
        engine: str = ENGINE,
        secret: str = "s3cret",
        path: str = os.environ["PATH"],
        **config: Any,
    ) -> subprocess.Popen[bytes]:
        own = self.folder / str(rank)
        own.mkdir(exist_ok=True)
        settings = {
            "rank": rank,
            "hosts": [f"host{one}" for one in range(len(self.addresses))],
            "addresses": self.addresses,
            "port": self.port,
            "engine": "engine",
            "drain_s": 5,
            "settings": "alike",
            "address_variables": ["ENGINE_HOST_IP"],
            "interface_variables": {"ENGINE_IFNAME": "={}"},
        }
        (own / "part.json").write_text(json.dumps(settings | config))
        (own / "engine").write_text(engine)
        (own / "part.py").write_text(program())
        (own / "part.secret").write_text(secret + "\n")
        environment = {**os.environ, "CREDENTIALS_DIRECTORY": str(own), "RANK_IS": str(rank)}
        environment["PATH"] = path
        with (own / "log").open("ab") as log:
            part = subprocess.Popen(
                [sys.executable, "-I", "part.py"],
                cwd=own,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.running.append(part)
        return part

    def log(self, rank: int) -> str:
        return (self.folder / str(rank) / "log").read_text()

    def both_run(self) -> bool:
        return all(f"engine of {rank}" in self.log(rank) for rank in range(len(self.addresses)))

    def engines(self) -> int:
        """How many engines run."""
        return len(set(self._processes()) - {part.pid for part in self.running})

    def _processes(self) -> Iterator[int]:
        for one in Path("/proc").glob("[0-9]*/environ"):
            # Others end meanwhile.
            with contextlib.suppress(OSError):
                if f"CREDENTIALS_DIRECTORY={self.folder}/".encode() in one.read_bytes():
                    yield int(one.parent.name)

    def end(self) -> None:
        for one in self._processes():
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGKILL)
        for part in self.running:
            part.wait()


def wait_for(true: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path)
    yield made
    made.end()


@pytest.fixture
def pair(parts: Parts) -> tuple[Parts, subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """Two parts whose engines run."""
    head, member = parts.start(0), parts.start(1)
    wait_for(parts.both_run)
    return parts, head, member


def test_nobody_starts_before_all_are_there_and_the_head_is_first(tmp_path: Path):
    made = Parts(tmp_path, size=3)
    for rank in range(3):
        # One log of all keeps the order of their lines.
        (tmp_path / str(rank)).mkdir()
        (tmp_path / str(rank) / "log").symlink_to(tmp_path / "log")
    try:
        made.start(2)
        made.start(0)
        wait_for(lambda: "waits for host1" in made.log(0) and "waits for host0" in made.log(2))
        time.sleep(1)
        assert "engine of" not in made.log(0) + made.log(2)
        made.start(1)
        wait_for(made.both_run)
        started = re.findall("rank ([0-9]) of 3 starts", made.log(0))
        assert started == ["0", "1", "2"]
        for one in made.running:
            one.terminate()
        assert [one.wait(30) for one in made.running] == [0, 0, 0]
        assert made.engines() == 0
    finally:
        made.end()


def test_an_engine_is_told_its_own_address_and_interface(pair: Any):
    parts, _, _ = pair
    # No interface here has 127.0.0.2 by name; the way to the other part says which address it is.
    assert "engine of 0 at 127.0." in parts.log(0) and "by =lo" in parts.log(0)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", ["killed", "ended with 0"])
def test_whichever_engine_ends_all_end(parts: Parts, rank: int, how: str):
    short = "echo engine of $RANK_IS; sleep 1; " + ("exit 0" if how != "killed" else "kill -9 $$")
    both = [parts.start(one, engine=short if one == rank else ENGINE) for one in (0, 1)]
    # Each unit is started anew by what it ends with, or in any case.
    assert [one.wait(20) for one in both] == [1, 1]
    assert parts.engines() == 0
    assert "its engine ended with" in parts.log(rank)
    assert f"host{rank} ends: its engine ended with" in parts.log(1 - rank)


def test_wrong_options_end_a_part_for_good_and_the_others_wait(parts: Parts):
    head, member = parts.start(0, engine="echo engine of 0; sleep 1; exit 2"), parts.start(1)
    assert head.wait(20) == 2
    assert member.wait(20) == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_a_part_that_is_killed_ends_the_others(pair: Any, rank: int):
    parts, *both = pair
    both[rank].kill()
    assert both[1 - rank].wait(20) == 1
    assert f"host{rank} is lost" in parts.log(1 - rank)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_part_that_is_silent_ends_the_others(pair: Any, rank: int):
    # As a host without power is, and one without its cable: nothing closes its connections.
    parts, *both = pair
    begun = time.monotonic()
    both[rank].send_signal(signal.SIGSTOP)
    assert both[1 - rank].wait(20) == 1
    assert 8 < time.monotonic() - begun < 16
    assert f"host{rank} is silent for 10 s" in parts.log(1 - rank)


def test_a_stopped_head_lets_its_engine_finish_before_the_others_end(pair: Any):
    parts, head, member = pair
    head.terminate()
    assert (head.wait(20), member.wait(20)) == (0, 1)
    assert "ended gently" in parts.log(0) and "ended gently" not in parts.log(1)
    assert parts.engines() == 0


def test_a_stopped_member_lets_the_heads_engine_finish(pair: Any):
    parts, head, member = pair
    member.terminate()
    assert (member.wait(20), head.wait(20)) == (0, 1)
    assert "host1 is stopped" in parts.log(0) and "ended gently" in parts.log(0)


def test_an_engine_that_does_not_end_is_killed_in_time(parts: Parts):
    deaf = "trap '' TERM\necho engine of $RANK_IS\nwhile :; do sleep 0.05; done"
    head, member = parts.start(0, engine=deaf, drain_s=-8), parts.start(1)
    wait_for(parts.both_run)
    head.terminate()
    assert head.wait(20) == 0 and member.wait(20) == 1
    assert parts.engines() == 0


def test_they_meet_again(pair: Any):
    parts, head, member = pair
    member.kill()
    head.wait(20)
    for rank in (0, 1):
        (parts.folder / str(rank) / "log").unlink()
        parts.start(rank)
    wait_for(parts.both_run)


def test_a_member_that_waits_is_stopped_at_once(parts: Parts):
    member = parts.start(1)
    wait_for(lambda: "waits for host0" in parts.log(1))
    member.terminate()
    assert member.wait(10) == 0


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"secret": "another"}, "does not know the group's secret"),
        ({"settings": "others"}, "rank 1 has other settings"),
        ({"rank": 7, "hosts": ["host0"] * 8, "addresses": ["127.0.0.2"] * 8}, "says no rank"),
    ],
)
def test_who_is_no_member_does_not_join(parts: Parts, other: dict[str, Any], why: str):
    parts.start(0)
    rank = other.pop("rank", 1)
    parts.start(rank, **other)
    wait_for(lambda: why in parts.log(0))
    time.sleep(1)
    assert "engine of" not in parts.log(0)


def test_a_head_that_does_not_know_the_secret_is_not_followed(parts: Parts):
    with socket.create_server(("127.0.0.2", parts.port)) as server:
        parts.start(1)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b'{"nonce": "0"}\n')
            connection.recv(4096)
            connection.sendall(b'{"proof": "0", "same": true}\n{"start": 1}\n')
            wait_for(lambda: "the head does not know the group's secret" in parts.log(1))
    assert "engine of" not in parts.log(1)


@pytest.mark.parametrize(
    "words",
    [b"GET / HTTP/1.1\r\n\r\n", b"[" * 4000 + b"\n", b"x" * 9000, b"[]\n", b'{"rank": 1}\n'],
)
def test_what_strangers_send_disturbs_nobody(pair: Any, words: bytes):
    parts, head, member = pair
    with socket.create_connection(("127.0.0.2", parts.port), 5) as one:
        one.sendall(words)
        one.settimeout(10)
        # It says its nonce, and nothing that a stranger could use; then it closes.
        with contextlib.suppress(ConnectionError):
            while one.recv(4096):
                pass
    time.sleep(1)
    assert (head.poll(), member.poll()) == (None, None)


def refused(port: int) -> bool:
    """Whether the head closes a connection without a word."""
    with socket.create_connection(("127.0.0.2", port), 5) as one:
        one.settimeout(4)
        try:
            return one.recv(4096) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


def test_a_head_without_file_descriptors_takes_members_once_it_has_some_again(parts: Parts):
    head = parts.start(0)
    wait_for(lambda: "waits for host1" in parts.log(0))
    limits = resource.prlimit(head.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(head.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    with socket.create_connection(("127.0.0.2", parts.port), 5):
        time.sleep(1)
    resource.prlimit(head.pid, resource.RLIMIT_NOFILE, limits)
    parts.start(1)
    wait_for(parts.both_run)


def test_a_head_that_cannot_start_a_thread_takes_members_once_it_can_again(parts: Parts):
    head = parts.start(0)
    wait_for(lambda: "waits for host1" in parts.log(0))
    limits = resource.prlimit(head.pid, resource.RLIMIT_AS)
    pages = int(Path(f"/proc/{head.pid}/statm").read_text().split()[0])
    # The stack of a thread takes more.
    most = pages * resource.getpagesize() + 2**20
    resource.prlimit(head.pid, resource.RLIMIT_AS, (most, limits[1]))
    # More of them than there may be connections at once.
    assert all(refused(parts.port) for _ in range(70))
    resource.prlimit(head.pid, resource.RLIMIT_AS, limits)
    parts.start(1)
    wait_for(parts.both_run)


def test_connections_that_are_refused_leave_nothing_behind(pair: Any):
    parts, head, _ = pair
    threads = Path(f"/proc/{head.pid}/task")
    before = len(list(threads.iterdir()))
    for _ in range(40):
        with socket.create_connection(("127.0.0.2", parts.port), 5) as one:
            one.sendall(b"[]\n")
    wait_for(lambda: len(list(threads.iterdir())) <= before, timeout_s=3)


def test_a_head_that_takes_nobody_any_more_ends():
    config = {"rank": 0, "hosts": ["host0", "host1"], "addresses": ADDRESSES[:2], "port": 0}
    one = Part(config, b"s3cret")
    server = socket.create_server(("127.0.0.2", 0))
    server.close()
    one.accept(server)
    with pytest.raises(GroupError, match="takes no"):
        one.meet()


def test_a_head_that_speaks_slowly_is_left(parts: Parts):
    with socket.create_server(("127.0.0.2", parts.port)) as server:
        parts.start(1)
        connection, _ = server.accept()
        begun = time.monotonic()
        with connection, contextlib.suppress(OSError):
            while time.monotonic() - begun < 15:
                connection.sendall(b" ")
                time.sleep(0.5)
        assert 3 < time.monotonic() - begun < 10
    wait_for(lambda: "the head is not joined" in parts.log(1))


def test_a_part_says_what_its_host_refuses(parts: Parts):
    with socket.create_server(("", parts.port)):
        assert parts.start(0).wait(20) == 1
    assert "in use" in parts.log(0) and "Traceback" not in parts.log(0)


def test_a_part_starts_where_the_interface_is_not_known(parts: Parts):
    engine = f"PATH={os.environ['PATH']}\n" + ENGINE
    for rank in (0, 1):
        parts.start(rank, engine=engine, path="/nowhere")
    wait_for(parts.both_run)
    assert "at 127.0.0." in parts.log(0) and "by \n" in parts.log(0)
