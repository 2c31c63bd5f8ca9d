import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from roles.balancer import Server, completions
from roles.balancer.completions import failures, script
from tests.unit.balancer.fleets import ENGINE_KEY


class Engine(BaseHTTPRequestHandler):
    """Answers its first request with 503, and later ones with a token if the key is right."""

    asked = 0

    def do_POST(self):
        type(self).asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        right = self.headers["Authorization"] == f"Bearer {ENGINE_KEY}"
        status = 503 if self.asked == 1 else 200 if right else 401
        body = json.dumps({"usage": {"completion_tokens": 1}, "request": self.asked}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object):
        pass


class Broken(Engine):
    """Goes away within its answer."""

    def do_POST(self):
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()


def ask(key: str, monkeypatch: pytest.MonkeyPatch, retry_s: float) -> dict[str, str]:
    monkeypatch.setattr(completions, "RETRY_S", retry_s)
    Engine.asked = 0
    address = ("127.0.0.1", 0)
    with ThreadingHTTPServer(address, Engine) as good, ThreadingHTTPServer(address, Broken) as bad:
        for server in (good, bad):
            Thread(target=server.serve_forever, daemon=True).start()
        ports = {"gpu1/r0": good.server_port, "gpu2/r0": 1, "gpu3/r0": bad.server_port}
        targets = [Server(name, "127.0.0.1", port) for name, port in ports.items()]
        program = script(targets, "tiny", key, timeout_s=60)
        done = subprocess.run(
            [sys.executable, "-"], input=program, capture_output=True, text=True, check=True
        )
        good.shutdown()
        bad.shutdown()
    return failures(json.loads(done.stdout))


def test_a_replica_that_is_just_starting_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    found = ask(ENGINE_KEY, monkeypatch, 4)
    assert found.keys() == {"gpu2/r0", "gpu3/r0"}
    assert found["gpu2/r0"] == "[Errno 111] Connection refused"


def test_a_reason_is_the_same_at_every_run(monkeypatch: pytest.MonkeyPatch):
    # The body of the answer counts the requests, and would make the file differ.
    assert ask("wrong", monkeypatch, 0.5)["gpu1/r0"] == "HTTP 401"
