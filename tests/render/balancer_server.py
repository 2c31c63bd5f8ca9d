"""What stands before and behind a balancer in tests: a client, and stand-ins for engines."""

import contextlib
import json
import os
import random
import shutil
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from roles.balancer import Member

# What an engine says that only its balancer may say, or that would steer the balancer.
LIES = {
    "X-LLM-Replica": "10.9.9.9:8001",
    "X-Request-ID": "forged",
    "Via": "1.1 forged",
    "Alt-Svc": 'h2="forged.example:443"',
    "Set-Cookie": "forged=1",
    "Strict-Transport-Security": "max-age=1; forged",
    "X-Powered-By": "forged",
    "X-Accel-Redirect": "/health",
    "X-Accel-Limit-Rate": "1",
    "X-Accel-Charset": "forged",
    "X-Accel-Expires": "forged",
    "X-Accel-Buffering": "yes",
}


def program(name: str) -> str:
    """The path of a program; without it the test is skipped, but fails in CI."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path:
        return path
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not installed")
    pytest.skip(f"{name} is not installed: apt-get install {name}")


def free_port() -> int:
    """A port that nothing listens on, of those that the kernel gives nobody meanwhile."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Engine(BaseHTTPRequestHandler):
    """Answers with what it got; its second chunk of a stream waits for `go_on`."""

    protocol_version = "HTTP/1.1"
    requests: list[dict[str, str]]
    go_on: Event
    gone: Event

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._note()
        if self.path == "/v1/wait":
            with contextlib.suppress(ConnectionResetError):
                self.connection.recv(1)
            self.gone.set()
            self.close_connection = True
        elif self.path == "/v1/break":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif self.path == "/v1/stream":
            self._stream()
        elif self.path == "/v1/lie":
            self._answer({"path": self.path}, LIES)
        else:
            self._answer({"path": self.path, "bytes": len(body)})

    def do_GET(self):
        self._note()
        self._answer({"path": self.path})

    def _note(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.requests.append(headers | {"path": self.path})

    def _answer(self, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"7\r\nfirst\n\n\r\n")
        # Longer than any client waits: held back, nothing must come at all.
        self.go_on.wait(600)
        self.wfile.write(b"6\r\nlast\n\n\r\n0\r\n\r\n")

    def log_message(self, format: str, *args: object):
        pass


class QuietServer(ThreadingHTTPServer):
    """A connection that a test cuts is no error."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def engine() -> Iterator[tuple[int, type[Engine]]]:
    """A stand-in for an engine: its port, and what it got."""

    class Own(Engine):
        requests: list[dict[str, str]] = []  # noqa: RUF012 - the instance's own class
        go_on = Event()
        gone = Event()

    with QuietServer(("127.0.0.1", 0), Own) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, Own
        server.shutdown()


class Client:
    """Speaks to the balancer and trusts only its certificate."""

    def __init__(self, port: int, certificate: Path, key: str, timeout_s: float = 60):
        self.port, self.certificate, self.key = port, certificate, key
        self.timeout_s = timeout_s

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    def connected(self) -> HTTPSConnection:
        """A connection that has had an answer, and stays open."""
        connection = self._connection()
        connection.request("GET", "/health")
        connection.getresponse().read()
        return connection

    def status_on(self, connection: HTTPSConnection) -> int | None:
        """The status of a request on an open connection; None where it was closed."""
        # Otherwise it is opened anew.
        connection.auto_open = 0
        try:
            connection.request("POST", "/v1/x", b"{}", {"Authorization": f"Bearer {self.key}"})
            return connection.getresponse().status
        except (OSError, HTTPException):
            return None

    def _connection(self) -> HTTPSConnection:
        context = self.context()
        return HTTPSConnection("127.0.0.1", self.port, context=context, timeout=self.timeout_s)

    def open(self, path: str, body: bytes | None = None, **headers: str) -> Any:
        """The response to a request with the right key, unless another header is given."""
        connection = self._connection()
        headers = {"Authorization": f"Bearer {self.key}"} | headers
        method = "GET" if body is None else "POST"
        connection.request(
            method, path, body, {name: value for name, value in headers.items() if value}
        )
        return connection.getresponse()

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of a response."""
        response = self.open(path, body, **headers)
        return response.status, json.loads(response.read())


def at(address: str, *ports: int, host: str = "gpu1") -> list[Member]:
    """Members at ports of an address."""
    return [Member(f"{host}/r-{i}", host, address, port) for i, port in enumerate(ports)]


@contextmanager
def two_engines() -> Iterator[tuple[int, list[type[Engine]], list[Member]]]:
    """A free port, two engines of two hosts, and them as members."""
    with (
        engine() as (port1, engine1),
        engine() as (port2, engine2),
        QuietServer(("127.0.0.2", port2), engine2) as second,
    ):
        Thread(target=second.serve_forever, daemon=True).start()
        found = [*at("127.0.0.1", port1, host="gpu1"), *at("127.0.0.2", port2, host="gpu2")]
        yield free_port(), [engine1, engine2], found
        second.shutdown()


def served(client: Client, engines: Sequence[type[Engine]]) -> tuple[int, ...]:
    """How many of eight requests each engine got."""
    for each in engines:
        each.requests.clear()
    assert [client.ask("/v1/x", b"{}")[0] for _ in range(8)] == [200] * 8
    return tuple(len(each.requests) for each in engines)


@contextmanager
def asking(client: Client) -> Iterator[list[int]]:
    """Ask all the time, until the block ends; the statuses."""
    statuses: list[int] = []
    over = Event()

    def ask() -> None:
        while not over.wait(0.02):
            try:
                statuses.append(client.ask("/v1/x", b"{}")[0])
            except OSError:
                statuses.append(0)

    askers = [Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        yield statuses
    finally:
        over.set()
        for asker in askers:
            asker.join()
