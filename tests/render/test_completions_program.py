"""The program that a balancer runs, on real sockets."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from roles.balancer import Member, Route, completions
from roles.balancer.completions import ServiceProbe, ServiceResults, parse_results, probe_script
from roles.balancer.nginx.render import render_engine_key
from tests.unit.balancer.fleets import ENGINE_KEY, route

OLD_KEY = "engine-key-of-before"


class Engine(BaseHTTPRequestHandler):
    """Answers with a token if one of its keys is right; the first `busy` requests with 503."""

    keys: tuple[str, ...] = (ENGINE_KEY,)
    model = "tiny"
    busy = 0
    asked = 0

    def do_POST(self):
        type(self).asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        right = self.headers["Authorization"] in [f"Bearer {key}" for key in self.keys]
        status = 503 if self.asked <= self.busy else 200 if right else 401
        answer = {"usage": {"completion_tokens": 1}, "model": self.model, "request": self.asked}
        body = json.dumps(answer).encode()
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


@contextmanager
def serving(*engines: type[Engine]) -> Iterator[list[Member]]:
    """A member for each engine: gpu0/r-0, gpu1/r-0 …"""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), engine) for engine in engines]
    for server in servers:
        Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield [
            Member(f"gpu{number}/r-0", f"gpu{number}", "127.0.0.1", server.server_port)
            for number, server in enumerate(servers)
        ]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def ask(*routes: Route, key_path: str = "/no/such") -> list[ServiceResults]:
    questions = [ServiceProbe(one, one.members, [key_path]) for one in routes]
    done = subprocess.run(
        [sys.executable, "-"],
        input=probe_script(questions, timeout_s=60),
        capture_output=True,
        text=True,
        check=True,
    )
    return list(parse_results(done.stdout))


def like(**values: object) -> type[Engine]:
    """An engine that differs."""
    return type("Own", (Engine,), values)


def test_a_replica_that_is_just_starting_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(completions, "RETRY_S", 4)
    with serving(like(busy=1), Broken) as members:
        dead = Member("gpu9/r-0", "gpu9", "127.0.0.1", 1)
        (found,) = ask(route("chat", *members, dead))
    assert found.failed.keys() == {"gpu1/r-0", "gpu9/r-0"}
    assert found.failed["gpu9/r-0"] == "[Errno 111] Connection refused"


def test_a_reason_is_the_same_at_every_run(monkeypatch: pytest.MonkeyPatch):
    # The body of the answer counts the requests, and would make the file differ.
    monkeypatch.setattr(completions, "RETRY_S", 0.5)
    with serving(like(busy=99)) as members:
        assert ask(route("chat", *members))[0].failed == {"gpu0/r-0": "HTTP 503"}


class Embedding(Engine):
    """Gives vectors and nothing else."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        found = self.path == "/v1/embeddings"
        answer = {"data": [{"embedding": [0.5]}], "model": "tiny"}
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


def test_a_service_is_asked_for_what_it_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(completions, "RETRY_S", 0)
    with serving(Embedding) as members:
        asked = route("search", *members)
        (found,) = ask(replace(asked, task="embed"))
        assert found.failed == {}
        assert ask(asked)[0].failed == {"gpu0/r-0": "HTTP 404"}


def test_each_service_is_asked_for_its_model_with_its_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(completions, "RETRY_S", 0)
    with serving(Engine, like(model="big", keys=("other-key-0123456789",))) as members:
        chat, code = (route(name, member) for name, member in zip("ab", members, strict=True))
        code = replace(code, model="big", engine_key="other-key-0123456789")
        assert [found.failed for found in ask(chat, code)] == [{}, {}]
        # An engine may answer to any name: its own decides.
        wrong = replace(code, model="tiny")
        assert ask(wrong)[0].failed == {"gpu1/r-0": "it serves big"}
        keyless = replace(chat, engine_key=None)
        assert ask(keyless)[0].failed == {"gpu0/r-0": "HTTP 401"}


@pytest.mark.parametrize(
    ("keys", "keeps_key", "failed"),
    [
        # A roll that stopped halfway: who has moved takes both keys.
        ([(OLD_KEY, ENGINE_KEY), (OLD_KEY,)], True, set()),
        ([(OLD_KEY,), (OLD_KEY,)], True, set()),
        ([(ENGINE_KEY,), (ENGINE_KEY,)], False, set()),
        # Each takes one: more of them the new one.
        ([(ENGINE_KEY,), (ENGINE_KEY,), (OLD_KEY,)], False, {"gpu2/r-0"}),
        ([("third-key-0123456789",)], False, {"gpu0/r-0"}),
    ],
)
def test_a_key_that_engines_do_not_expect_yet(
    tmp_path: Path, keys: list[tuple[str, ...]], keeps_key: bool, failed: set[str]
):
    file = tmp_path / "key"
    file.write_text(render_engine_key(route(engine_key=OLD_KEY)))
    with serving(*(like(keys=own) for own in keys)) as members:
        (found,) = ask(route("chat", *members), key_path=str(file))
    assert (found.keeps_key, found.failed.keys()) == (keeps_key, failed)
