"""How many requests a replica says it works on, whatever it answers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from roles.launch import on_host


@contextmanager
def answering(reply: bytes) -> Iterator[dict[str, Any]]:
    """A replica whose engine sends these bytes to whoever asks."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        threading.Thread(target=answer, daemon=True).start()
        yield {
            "port": server.getsockname()[1],
            "key": "k",
            "busy": {"path": "/metrics", "gauges": ["busy", "waiting"]},
        }


HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (HEAD + b"\r\n# HELP busy\nbusy 2\nwaiting 1\nother 9\n", 3),
        # It was stopped in the middle, or something else listens there.
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n99\r\nbusy 2\n", 0),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 0),
        (b"", 0),
        (HEAD + b"\r\nbusy many\n", 0),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", 0),
    ],
)
def test_an_answer_that_says_nothing_counts_as_none(reply: bytes, expected: int):
    with answering(reply) as replica:
        assert on_host.active_requests(replica) == expected
