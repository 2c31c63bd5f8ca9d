"""A stand-in engine on loopback, for what is asked over HTTP."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = {"model": "m", "usage": {"completion_tokens": 1}, "system_fingerprint": "f"}
Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


@contextmanager
def engine(
    reply: Reply, context: ssl.SSLContext | None = None, listed: bytes | None = None
) -> Iterator[str]:
    """The base URL of a server that answers each POST by `reply(handler, body)`.

    `listed` is its answer to the question for its models; without one it knows no GET.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if listed is None or self.path != "/v1/models":
                return self.send_error(501)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(listed)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reply(self, json.loads(body))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    scheme = "https" if context else "http"
    try:
        yield f"{scheme}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def send(status: int, *parts: str, **headers: str) -> Reply:
    """A reply of that status, made of parts; `X_Y` sends the header `X-Y`."""

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        for part in parts:
            handler.wfile.write(part.encode())

    return reply


def chat_engine(
    model: str = "m", tp: int = 1, key: str = "k", replica: str = "", delay_s: float = 0.005
) -> Reply:
    """An engine that answers chat completions as vLLM does, streamed or not, and checks the key."""

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        headers = {"X_LLM_Replica": replica} if replica else {}
        time.sleep(delay_s)
        if handler.headers["Authorization"] != f"Bearer {key}":
            return send(401, "Unauthorized", **headers)(handler, body)
        if body.get("stream"):
            chunk = 'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
            return send(200, chunk, chunk, "data: [DONE]\n\n", **headers)(handler, body)
        answer = GOOD | {"model": model, "system_fingerprint": f"vllm-0.32.0-tp{tp}-abc"}
        return send(200, json.dumps(answer), **headers)(handler, body)

    return reply
