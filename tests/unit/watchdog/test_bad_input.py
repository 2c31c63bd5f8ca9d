"""Bad input and hostile answers: the watchdog goes on, does nothing rash, and says what it could
not read.

| input | tests |
|---|---|
| page of metrics: huge, nonsense, cut, no numbers | render/test_watchdog_program |
| page without end, slow, or that announces too much | render/test_watchdog_program |
| slots that are none | render/test_watchdog_program |
| completion that is none, repeats a character, or lies about its size | test_reading |
| step counter that goes back, stands, or is no number | test_judge, test_reading |
| clock that jumps, machine that sleeps | test_judge, here, render/test_watchdog |
| manifest: cut, huge, damaged entries | test_reading, render/test_watchdog_program |
| file of a quarantine that is damaged | here, test_deployed, render/test_watchdog_program |
| its own counts that are damaged | test_reading |
| systemctl that does not answer, or says nonsense | here, render/test_watchdog_program |
| /proc/locks that says nonsense | here |
| root helper: no answer, nonsense, without end | here |
| commands to the root helper | render/test_watchdog |
| other host: no answer, nonsense, without end, slow | here, test_reading |
| questions at the agent port: long, slow, many | render/test_watchdog_program |
| nvidia-smi and the kernel's log: any text, no answer | test_gpus, render/test_watchdog |
"""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.watchdog.on_host.agent import Peer, ask_peers
from roles.watchdog.on_host.files import ask_helper, locked
from roles.watchdog.on_host.steps import RESTART, Rules, may_reboot, next_step, with_step
from roles.watchdog.on_host.units import Unit, parse_units, read_units

HERE = Path(__file__)
ROOT = HERE.parents[2]


def test_each_input_has_its_tests():
    named = set(re.findall(r"\b(?:render/)?test_\w+", __doc__ or ""))
    assert len(named) > 5
    for name in named:
        folder = ROOT if name.startswith("render/") else HERE.parent
        assert (folder / f"{name}.py").exists(), name


@contextmanager
def sending(server: socket.socket, piece: bytes, pause_s: float) -> Iterator[None]:
    """A server that answers everybody with the same piece, without end unless it is empty."""
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while piece and not over.is_set():
                connection.sendall(piece)
                time.sleep(pause_s)

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection = server.accept()[0]
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        server.shutdown(socket.SHUT_RDWR)


ANSWERS = pytest.mark.parametrize(
    ("piece", "pause_s"),
    [(b"", 0), (b"x" * 65536, 0), (b"[", 0.01), (b"\xff\0{}", 0.05)],
    ids=["none", "endless", "slow", "nonsense"],
)


@ANSWERS
def test_a_helper_that_gives_no_answer_is_one_that_failed(
    tmp_path: Path, piece: bytes, pause_s: float
):
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        begin = time.monotonic()
        with sending(server, piece, pause_s):
            answer = ask_helper(path, {"do": "close", "replica": "q-0"}, 1)
    assert answer["ok"] is False and answer["error"]
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("text", [b"5", b"null", b"[]", b'"ok"', b"[" * 5000])
def test_a_helper_whose_answer_is_no_object_failed(tmp_path: Path, text: bytes):
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def answer() -> None:
            with suppress(OSError):
                connection = server.accept()[0]
                connection.recv(100)
                connection.sendall(text)
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        assert ask_helper(path, {"do": "close", "replica": "q-0"}, 2)["ok"] is False


@ANSWERS
def test_a_host_that_gives_no_answer_is_unknown_in_time(piece: bytes, pause_s: float):
    with socket.create_server(("127.0.0.1", 0)) as server, sending(server, piece, pause_s):
        begin = time.monotonic()
        peer = Peer("b", "127.0.0.1", {"q-0": "q"})
        assert ask_peers([peer], server.getsockname()[1]) == {"b": None}
        assert time.monotonic() - begin < 4


@given(st.binary(max_size=400))
def test_any_table_of_locks_holds_nothing_by_accident(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
):
    folder = tmp_path_factory.getbasetemp()
    lock, locks = folder / "lock", folder / "locks"
    lock.touch()
    locks.write_bytes(text)
    assert locked(str(lock), str(locks)) is False
    assert locked(str(folder / "none"), str(locks)) is False


@given(st.text())
def test_any_answer_of_systemctl_is_units_that_do_not_run(text: str):
    assert parse_units(text, ["q-0"])["q-0"].active in (False, True)
    assert parse_units("Id=llm-engine@q-0.service\n" + text, ["q-1"]) == {"q-1": Unit(False, "")}


@pytest.mark.parametrize("program", ["exit 1", "sleep 60", "echo nonsense; exit 3"])
def test_a_systemctl_that_fails_says_nothing_of_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
):
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\nexec /bin/sh -c '{program}'\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("roles.watchdog.on_host.units.SYSTEMCTL_S", 0.5)
    assert read_units(["q-0"]) is None


def test_a_wall_clock_that_jumps_allows_no_second_reboot():
    assert not may_reboot([2e9], 1e9, host_serves=False), "the clock went back"
    assert not may_reboot([1e9], 1e9 - 1, host_serves=False)


def test_steps_of_another_clock_count_for_nothing():
    # A monotonic clock begins anew with each boot.
    history = with_step([(9e9, RESTART)] * 5, 100.0, RESTART)
    assert history == [(100.0, RESTART)]
    assert next_step(history, 101.0, Rules(3, 1800, False, False)) == RESTART
