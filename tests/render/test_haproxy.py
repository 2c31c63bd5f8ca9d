"""What HAProxy alone has: the text of its files, HTTP/2, chunked bodies, and the agent-check.

`python -m tests.render.test_haproxy` writes the expected texts anew.
"""

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from tempfile import TemporaryDirectory
from threading import Event, Thread

import pytest

from roles.balancer.haproxy import paths
from roles.balancer.haproxy.paths import DRAINED, SERVICE, SITE, UPSTREAMS
from roles.watchdog.on_host.agent import Board, listen, serve
from tests.unit.balancer.fleets import CLIENT_KEY, route, settings

from .balancer_host import BalancerHost
from .balancer_programs import AUDIO, CHAT, HAPROXY, files, make_certificate, site, texts
from .balancer_server import Client, Engine, program, served, two_engines

EXPECTED = Path(__file__).parent / "haproxy"
KEYS = [paths.client_keys("code-7b"), paths.engine_key("code-7b"), paths.engine_key("chat")]
TEXTS = [SITE, UPSTREAMS, DRAINED, SERVICE, *KEYS]


def expected(path: str) -> Path:
    """The file with the expected text of a file on a host."""
    return EXPECTED / (Path(path).name if path != SERVICE else "haproxy.service.conf")


@pytest.mark.parametrize("path", TEXTS)
def test_text(tmp_path: Path, path: str):
    assert texts(HAPROXY, tmp_path)[path] == expected(path).read_text()


def test_an_own_template(tmp_path: Path):
    own = tmp_path / "own.j2"
    sent = "frontend f\n    use_backend llm_chat\n"
    own.write_text(sent + "{% for s in sites %}# {{ s.port }}\n{% endfor %}")
    given = settings(tmp_path, program="haproxy", template=own)
    assert site(HAPROXY, given, [CHAT, AUDIO])[SITE] == f"{sent}# 443\n# 8443\n"


def curl(client: Client, *arguments: str, body: bytes = b"{}") -> tuple[int, str, bytes]:
    """Status, version of HTTP and body of a request to /v1/x."""
    command = [
        *(program("curl"), "-sS", "--cacert", str(client.certificate), "--max-time", "30"),
        *("-H", f"Authorization: Bearer {client.key}", "-H", "Expect:", "--data-binary", "@-"),
        *("-w", "\n%{http_code} %{http_version}", *arguments),
        f"https://127.0.0.1:{client.port}/v1/x",
    ]
    done = subprocess.run(command, input=body, capture_output=True, check=True)
    answer, _, line = done.stdout.rpartition(b"\n")
    status, version = line.decode().split()
    return int(status), version, answer


@dataclass
class Running:
    """A running HAProxy in front of two engines."""

    client: Client
    host: BalancerHost
    engines: list[type[Engine]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("haproxy")
    certificate = make_certificate(HAPROXY, folder)
    with two_engines() as (port, engines, found):
        given = settings(folder, port=port, ipv6=False, max_body_mib=1)
        host = BalancerHost(folder, HAPROXY)
        HAPROXY.install(folder, {})
        host.write(files(HAPROXY, given, [route("chat", *found)]))
        with HAPROXY.running(folder, port):
            yield Running(Client(port, certificate, CLIENT_KEY), host, engines)


def test_a_stream_of_http2_is_not_held_back(running: Running):
    for each in running.engines:
        each.go_on.clear()
    client = running.client
    command = [
        *(program("curl"), "-sSN", "--http2", "--cacert", str(client.certificate), "-d", "{}"),
        *("-H", f"Authorization: Bearer {client.key}"),
        f"https://127.0.0.1:{client.port}/v1/stream",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        try:
            assert asking.stdout.readline() == "first\n"
        finally:
            for each in running.engines:
                each.go_on.set()
        assert asking.stdout.read() == "\nlast\n\n"


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_bodies_by_both_versions(running: Running, version: str):
    option = f"--http{version}"
    assert curl(running.client, option, body=b"x" * 2**20)[:2] == (200, version)
    status, _, answer = curl(running.client, option, body=b"x" * (2**20 + 1))
    assert status == 413 and b"request_too_large" in answer


@pytest.mark.parametrize("arguments", [["--http1.1", "-H", "Transfer-Encoding: chunked"]])
@pytest.mark.parametrize(("bytes", "status"), [(60_000, 200), (70_000, 411), (2**20 + 1, 411)])
def test_a_body_without_a_length(running: Running, arguments: list[str], bytes: int, status: int):
    try:
        found, _, answer = curl(running.client, *arguments, body=b"x" * bytes)
    except subprocess.CalledProcessError as error:
        # Whoever sends more than the socket holds sees no answer.
        assert status == 411 and bytes > 2**20 and error.returncode == 55
        return
    assert found == status and (status == 200 or b"length_required" in answer)


def test_reloads_lose_no_request_of_either_version(running: Running):
    client, over = running.client, Event()
    statuses: Counter[str] = Counter()

    def keep_asking() -> None:
        connection: HTTPSConnection | None = None
        while not over.is_set():
            connection = connection or client.connected()
            try:
                headers = {"Authorization": f"Bearer {client.key}"}
                connection.request("POST", "/v1/x", b"{}", headers)
                response = connection.getresponse()
                response.read()
                statuses[f"1.1 kept {response.status}"] += 1
                connection = None if response.will_close else connection
            except (OSError, HTTPException) as error:
                statuses[f"1.1 kept {error!r}"] += 1
                connection = None

    def ask_anew() -> None:
        while not over.is_set():
            for version in ("1.1", "2"):
                status, used, _ = curl(client, f"--http{version}")
                statuses[f"{used} {status}"] += 1

    askers = [Thread(target=one) for one in (keep_asking, keep_asking, ask_anew)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(3):
            running.host.drain("gpu2/*")
            running.host.undrain("gpu2/*")
    finally:
        over.set()
        for asker in askers:
            asker.join()
    assert running.host.reloads >= 6
    assert statuses.keys() == {"1.1 kept 200", "1.1 200", "2 200"}


@contextmanager
def agent() -> Iterator[tuple[int, list[str]]]:
    """A host's agent: its port, and what it answers (the last word counts)."""
    answers = ["up 100%"]

    class Agent(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(f"{answers[-1]}\n".encode())

    with ThreadingTCPServer(("127.0.0.2", 0), Agent) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], answers
        server.shutdown()


@pytest.mark.parametrize("word", ["drain", "down", "0%"])
def test_the_agent_of_a_host_takes_it_out_and_back(tmp_path: Path, word: str):
    certificate = make_certificate(HAPROXY, tmp_path)
    with two_engines() as (port, engines, (one, other)), agent() as (agent_port, answers):
        given = settings(tmp_path, port=port, ipv6=False)
        routes = [route("chat", one, replace(other, agent_port=agent_port))]
        HAPROXY.install(tmp_path, site(HAPROXY, given, routes))
        with HAPROXY.running(tmp_path, port):
            client = Client(port, certificate, CLIENT_KEY)

            def in_time(serves: bool) -> bool:
                end = time.monotonic() + 20
                while (served(client, engines)[1] > 0) is not serves:
                    if time.monotonic() > end:
                        return False
                return True

            assert in_time(True)
            answers.append(word)
            assert in_time(False)
            answers.append("ready up 100%")
            assert in_time(True)


def test_a_watchdog_answers_for_each_replica_of_its_host(tmp_path: Path):
    certificate, board = make_certificate(HAPROXY, tmp_path), Board()
    with (
        two_engines() as (port, engines, members),
        listen("0.0.0.0", 0) as server,
    ):
        Thread(target=serve, args=(server, board), daemon=True).start()
        agent_port = server.getsockname()[1]
        own = [
            replace(member, id=f"gpu1/q-{number}", agent_port=agent_port)
            for number, member in enumerate(members)
        ]
        given = settings(tmp_path, port=port, ipv6=False)
        HAPROXY.install(tmp_path, site(HAPROXY, given, [route("chat", *own)]))
        with HAPROXY.running(tmp_path, port):
            client = Client(port, certificate, CLIENT_KEY)
            for words, serve_now in (
                ({}, (True, True)),
                ({"q-0": "up 100%", "q-1": "down"}, (True, False)),
                # A watchdog that knows nothing, as while a deploy is at work, changes nothing.
                ({}, (True, False)),
                ({"q-0": "down", "q-1": "up 100%"}, (False, True)),
                ({"q-0": "up 100%", "q-1": "up 100%"}, (True, True)),
            ):
                board.words = words
                # It is asked every two seconds.
                time.sleep(2.5)
                found = served(client, engines)
                assert tuple(count > 0 for count in found) == serve_now, words


if __name__ == "__main__":
    EXPECTED.mkdir(exist_ok=True)
    with TemporaryDirectory() as scratch:
        for target in TEXTS:
            expected(target).write_text(texts(HAPROXY, Path(scratch))[target])
