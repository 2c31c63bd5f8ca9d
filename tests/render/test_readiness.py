"""Which replicas of a host are ready, by what their own ports say."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from roles.engine import DEPLOYMENTS
from roles.host.paths import REPLICAS
from roles.host.question import Part, parse_answers, question
from roles.launch import readiness
from roles.launch.state import PART, parse_state


class _Engine(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/drips":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(100):
                self.wfile.write(b"X-More: 1\r\n")
                self.wfile.flush()
                time.sleep(0.2)
        self.send_response(int(self.path[1:]) if self.path[1:].isdigit() else 200)
        self.end_headers()

    def log_message(self, format, *args):  # pyright: ignore
        pass


@contextmanager
def serving(address: str = "127.0.0.1") -> Iterator[int]:
    server = ThreadingHTTPServer((address, 0), _Engine)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def test_all_are_asked_at_once_and_nobody_holds_the_answer_up():
    with serving() as port:
        asks = [("ok", port, "/200"), ("loads", port, "/503"), ("drips", port, "/drips")]
        asks += [("refuses", free_port(), "/200")]
        words = [str(word) for name, *ask in asks for word in (name, "127.0.0.1", *ask)]
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, readiness.__file__, *words], capture_output=True, text=True, check=True
        )
    assert done.stdout.splitlines() == ["loads 503", "ok 200", "refuses 0"]
    assert time.monotonic() - start < readiness.LIMIT_S + 3


@pytest.mark.parametrize("kind", DEPLOYMENTS)
def test_the_one_question_asks_the_port_that_a_replica_runs_with(kind: str, tmp_path: Path):
    """The question itself, in sh, with systemd's words written down."""
    folders, bin = tmp_path / "replicas", tmp_path / "bin"
    with (
        serving() as port,
        serving("127.0.0.2") as head,
        _processes(folders, kind, {"a-0": port, "b-0": free_port(), "c-0": head}) as pids,
    ):
        bin.mkdir()
        _systemctl(bin / "systemctl", pids)
        script = PART.script.replace(REPLICAS, str(folders))
        done = subprocess.run(
            ["sh", "-c", question([Part(PART.name, script)])],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"},
        )
    sections = parse_answers(done.stdout.splitlines())[PART.name]
    units = parse_state(sections).units
    assert {name: unit.ready for name, unit in units.items()} == {
        "a-0": True,
        "b-0": False,
        "c-0": True,
    }
    assert {unit.digest for unit in units.values()} == {"00ff"}


@contextmanager
def _processes(folders: Path, kind: str, ports: dict[str, int]) -> Iterator[dict[str, int]]:
    """A process for each replica that runs in its numbered folder."""
    running = {}
    for name, port in ports.items():
        folder = folders / name / "1"
        folder.mkdir(parents=True)
        about = {"name": name, "engine": kind, "port": port, "digest": "00ff"}
        # As of a part whose head is elsewhere; nobody listens here.
        about |= {"head": "127.0.0.2"} if name == "c-0" else {}
        (folder / "replica.json").write_text(json.dumps(about, indent=1) + "\n")
        running[name] = subprocess.Popen([shutil.which("sleep") or "sleep", "60"], cwd=folder)
    try:
        yield {name: one.pid for name, one in running.items()}
    finally:
        for one in running.values():
            one.kill()
            one.wait()


def _systemctl(path: Path, pids: dict[str, int]) -> None:
    units = "\n".join(f"llm-engine@{name}.service loaded active running x" for name in pids)
    cases = "\n".join(f"*@{name}.service) echo {pid} ;;" for name, pid in pids.items())
    path.write_text(
        f"""#!/bin/sh
case "$1" in
list-units) echo '{units}' ;;
is-active) echo active ;;
is-enabled) echo enabled ;;
show) case "$4" in
{cases}
esac ;;
esac
"""
    )
    path.chmod(0o755)
