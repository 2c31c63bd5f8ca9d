"""What an engine may send to harm whoever asks it: bytes without end, slowly, or deep."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.host import probe
from roles.host.probe import chat, chat_stream
from roles.launch import on_host
from tests.unit.launch.stand_in import GOOD, engine, send
from tests.unit.validation.certificate import self_signed

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
MEBIBYTE = b"x" * (1 << 20)
CALLS: tuple[Callable[..., dict[str, Any]], ...] = (chat, chat_stream)
asked_both_ways = pytest.mark.parametrize("call", CALLS)


@contextmanager
def sending(pieces: Callable[[], Iterator[bytes]], pause_s: float = 0) -> Iterator[str]:
    """The URL of a server that sends these to whoever connects, until nobody reads them."""
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            for piece in pieces():
                connection.sendall(piece)
                if ended.wait(pause_s):
                    return

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)


@asked_both_ways
@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(HEAD + b"\r\n", MEBIBYTE, id="body"),
        pytest.param(HEAD + b"Content-Length: 99999999999999\r\n\r\n", MEBIBYTE, id="length"),
        pytest.param(HEAD + b"\r\n", b"data: {}\n\n" * 9999, id="stream"),
        pytest.param(CHUNKED, b"100000\r\n" + MEBIBYTE + b"\r\n", id="chunks"),
        # In some versions of http.client a negative length reads whatever comes.
        pytest.param(CHUNKED + b"-1\r\n", MEBIBYTE, id="negative chunk"),
        pytest.param(CHUNKED, b"1;" + MEBIBYTE, id="chunk's extension"),
        pytest.param(CHUNKED + b"0\r\n", b"Trailer: x\r\n" * 9999, id="trailers"),
        pytest.param(HEAD, b"X-Header: x\r\n" * 9999, id="headers"),
        pytest.param(HEAD + b"X: ", MEBIBYTE, id="header"),
        pytest.param(b"", MEBIBYTE, id="status line"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 9999, id="continue"),
        pytest.param(b"HTTP/1.1 500 Oh\r\n\r\n", MEBIBYTE, id="error"),
    ],
)
def test_an_endless_answer_is_left_early(
    call: Callable[..., dict[str, Any]], start: bytes, piece: bytes
) -> None:
    sent = []

    def pieces() -> Iterator[bytes]:
        for one in chain([start], repeat(piece)):
            sent.append(len(one))
            yield one

    with sending(pieces) as url:
        answer = call(url, "k", "m", timeout_s=60)
    assert not answer["ok"]
    assert sum(sent) < 32 << 20
    assert len(answer["error"]) <= probe.MAX_TEXT_LENGTH + 20


@asked_both_ways
@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD + b"\r\n", b"x"),
        (HEAD + b"\r\n", b"data: {}\n\n"),
        (HEAD, b"X: x\r\n"),
        (HEAD + b"X:", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CHUNKED, b"0"),
        (CHUNKED, b"1\r\nx\r\n"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", b"x"),
        (b"", b""),
    ],
)
def test_a_trickle_does_not_outlive_the_limit(
    call: Callable[..., dict[str, Any]], start: bytes, piece: bytes
) -> None:
    began = time.monotonic()
    with sending(lambda: chain([start], repeat(piece)), pause_s=0.05) as url:
        answer = call(url, "k", "m", timeout_s=0.4)
    assert (answer["ok"], answer["error"]) == (False, "timed out")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("start", "piece"), [(b"", b""), (b"\x16\x03\x03\x40\x00", b"\x00")], ids=["silence", "trickle"]
)
def test_a_handshake_does_not_outlive_the_limit(tmp_path: Path, start: bytes, piece: bytes) -> None:
    pem, _ = self_signed(tmp_path)
    context = ssl.create_default_context(cadata=pem)
    with sending(lambda: chain([start], repeat(piece)), pause_s=0.05) as url:
        answer = chat(url.replace("http", "https"), "k", "m", timeout_s=0.4, context=context)
    assert (answer["ok"], answer["error"]) == (False, "timed out")


@pytest.mark.parametrize("deep", ["[" * 300_000, '{"a":' * 50_000, '{"usage":' + "[" * 9999])
def test_deep_json_is_no_completion(deep: str) -> None:
    with engine(send(200, deep)) as url:
        assert not chat(url, "k", "m", timeout_s=60)["ok"]
    with engine(send(200, f"data: {deep}\n\n" * 2)) as url:
        assert chat_stream(url, "k", "m", timeout_s=60)["error"] == "2 chunks, [DONE] False"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.just(10**4000)
    | st.text(st.characters(), max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["model", "usage", "completion_tokens", "system_fingerprint", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
COMPLETION = st.fixed_dictionaries(
    {"usage": st.fixed_dictionaries({"completion_tokens": JSON | st.just(1)}) | JSON},
    optional={"model": JSON, "system_fingerprint": JSON},
)


@given(JSON | COMPLETION)
def test_any_json_is_a_completion_of_the_right_types_or_none(answer: object) -> None:
    text = json.dumps(answer)
    try:
        tokens, model, fingerprint = probe._completion(probe.parsed(text))
    except probe.ERRORS:
        return
    assert type(tokens) is int
    for printed in (model, fingerprint):
        assert printed is None or (printed.isprintable() and len(printed) <= probe.MAX_TEXT_LENGTH)


@pytest.mark.parametrize(
    "reply",
    [
        send(500, "\x1b]0;owned\x07\u202eno\u2028way\x9b31m"),
        send(200, 'data: {"error": "\\u001b[2J\\u202e"}\n\n'),
        send(200, json.dumps(GOOD | {"model": "\x1b[31mm"}), X_LLM_Replica="\x1b[31m"),
    ],
)
def test_no_control_character_is_passed_on(reply: Callable[..., None]) -> None:
    with engine(reply) as url:
        for call in CALLS:
            for value in call(url, "k", "m", timeout_s=60).values():
                assert not isinstance(value, str) or value.isprintable()


def test_a_redirect_is_not_followed_with_a_key() -> None:
    asked = []

    def elsewhere(handler: Any, body: dict[str, Any]) -> None:
        asked.append(handler.headers["Authorization"])
        send(200, json.dumps(GOOD))(handler, body)

    with engine(elsewhere) as target, engine(send(307, Location=target)) as url:
        assert chat(url, "k", "m", timeout_s=60)["error"].startswith("HTTP 307")
        busy = {"path": "/metrics", "gauges": ["busy"]}
        port = int(url.rpartition(":")[2])
        assert on_host.active_requests({"port": port, "key": "k", "busy": busy}) == 0
    assert asked == []
