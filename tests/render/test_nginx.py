"""The balancer's files as a whole: their text, through `nginx -t`, and in a running nginx.

`python -m tests.render.test_nginx` writes the expected texts anew.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest

from roles.balancer import BalancerSettings, Server, render_keys, render_site, servers
from roles.balancer.aside import set_aside_script, take_back_script
from roles.balancer.certificate import make_script, names_command, parse_names
from roles.balancer.nginx import KEYS, LOADED, SELF_SIGNED, SITE, check, state_command
from tests.unit.balancer.fleets import CLIENT_KEY, ENGINE_KEY, plan, settings

from .nginx_server import (
    Client,
    Engine,
    QuietServer,
    engine,
    free_port,
    install,
    moved,
    program,
    running,
)

EXPECTED = Path(__file__).parent / "nginx"
FLEET = plan(gpu1=[8000, 8001], gpu2=[8000], gpu3=[8000])
ADDRESSES = {"gpu1": "10.0.0.1", "gpu2": "10.0.0.2", "gpu3": "fd00::3"}
NAMES = ("DNS:llm.example.com", "IP:127.0.0.1")


def texts(folder: Path) -> dict[str, str]:
    """The files of a fleet where one host is drained and one replica fails, by path."""
    found = servers(FLEET, ADDRESSES, ["gpu2"], {"gpu1/r1": "HTTP 500"})
    given = settings(folder, server_name="llm.example.com")
    return site(given, found)


def site(given: BalancerSettings, found: tuple[Server, ...]) -> dict[str, str]:
    return {
        SITE: render_site(given, found, SELF_SIGNED, SELF_SIGNED),
        KEYS: render_keys(given.api_key, given.engine_key),
    }


def make_certificate(folder: Path) -> Path:
    program("openssl")
    path = Path(moved(SELF_SIGNED, folder))
    subprocess.run(["sh", "-c", make_script(str(path), NAMES)], check=True)
    return path


def nginx_t(folder: Path, files: dict[str, str]) -> str:
    """What `nginx -t` says about the files, "" where they are right."""
    nginx = program("nginx")
    make_certificate(folder)
    main = install(folder, files)
    done = subprocess.run([nginx, "-t", "-q", "-c", main], capture_output=True, text=True)
    return done.stderr or ("" if done.returncode == 0 else "failed without a word")


@pytest.mark.parametrize("path", [SITE, KEYS])
def test_text(tmp_path: Path, path: str):
    assert texts(tmp_path)[path] == (EXPECTED / Path(path).name).read_text()


def test_the_site_holds_no_key(tmp_path: Path):
    text = texts(tmp_path)[SITE]
    assert CLIENT_KEY not in text and ENGINE_KEY not in text


@pytest.mark.parametrize(
    "failures",
    [{}, {"gpu1/r0": "x\n}\nserver 6.6.6.6:80; # \u2028 ' \" {"}, dict.fromkeys(["gpu1/r0"], "x")],
)
@pytest.mark.parametrize("drained", [[], ["gpu1"], ["gpu1", "gpu2", "gpu3"]])
def test_nginx_takes_it(tmp_path: Path, failures: dict[str, str], drained: list[str]):
    found = servers(FLEET, ADDRESSES, drained, failures)
    given = settings(tmp_path, port=free_port(), ipv6=socket.has_ipv6)
    assert nginx_t(tmp_path, site(given, found)) == ""


def test_nginx_takes_long_keys_and_a_thousand_replicas(tmp_path: Path):
    fleet = plan(**{f"gpu{i}": list(range(8000, 8010)) for i in range(100)})
    addresses = {f"gpu{i}": f"10.0.1.{i}" for i in range(100)}
    given = settings(tmp_path, port=free_port(), ipv6=False)
    given.api_key_file.write_text("k" * 500)
    assert nginx_t(tmp_path, site(given, servers(fleet, addresses, [], {}))) == ""


def test_an_own_template(tmp_path: Path):
    own = tmp_path / "own.j2"
    own.write_text("{% for server in servers %}{{ server.endpoint }} {% endfor %}{{ port }}\n")
    found = servers(FLEET, ADDRESSES, [], {})
    text = render_site(settings(tmp_path, template=own), found, SELF_SIGNED, SELF_SIGNED)
    assert text == "10.0.0.1:8000 10.0.0.1:8001 10.0.0.2:8000 [fd00::3]:8000 443\n"


def test_the_self_signed_certificate(tmp_path: Path):
    path = make_certificate(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    said = subprocess.run(
        ["sh", "-c", names_command(str(path))], capture_output=True, text=True, check=True
    )
    assert parse_names(said.stdout) == set(NAMES)
    path.write_text("broken")
    said = subprocess.run(
        ["sh", "-c", names_command(str(path))], capture_output=True, text=True, check=True
    )
    assert said.stdout == ""


@pytest.mark.parametrize(
    ("change", "said"), [("", ""), ("nonsense on;\n", 'unknown directive "nonsense" in {live}')]
)
def test_the_check_sees_the_new_files_with_the_live_ones(tmp_path: Path, change: str, said: str):
    """The check is run as `roles.host.operations.present` does, over a copy of a host's files."""
    program("nginx")
    folder, stage = tmp_path / "host", tmp_path / "stage"
    files = site(
        settings(tmp_path, port=free_port(), ipv6=False), servers(FLEET, ADDRESSES, [], {})
    )
    make_certificate(folder)
    main = install(folder, files)
    (main.parent / "dangling").symlink_to("/no/such/file")
    live = Path(moved(SITE, folder))
    before = live.read_text()
    staged = stage / str(live).lstrip("/")
    staged.parent.mkdir(parents=True)
    staged.write_text(before + change)
    done = subprocess.run(
        ["sh", "-c", f"set -eu; STAGE={stage}; ( {check(str(main.parent))} ) || exit 1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == (1 if change else 0), done.stderr
    assert said.format(live=live) in done.stderr
    assert live.read_text() == before and staged.read_text() == before + change


@dataclass
class Balancer:
    """A running nginx in front of two engines and a third that is dead."""

    client: Client
    engines: list[type[Engine]]
    folder: Path

    def requests(self) -> list[dict[str, str]]:
        """What reached any engine, since it was asked last."""
        found = [request for engine in self.engines for request in engine.requests]
        for each in self.engines:
            each.requests.clear()
        return found


@pytest.fixture(scope="module")
def balancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    program("nginx")
    folder = tmp_path_factory.mktemp("balancer")
    port = free_port()
    given = settings(folder, port=port, ipv6=False, max_body_mib=1)
    certificate = make_certificate(folder)
    with engine() as (port1, engine1), engine() as (port2, engine2):
        fleet = plan(gpu1=[port1, port2, free_port()])
        found = servers(fleet, {"gpu1": "127.0.0.1"}, [], {})
        with running(install(folder, site(given, found)), port):
            yield Balancer(Client(port, certificate, CLIENT_KEY), [engine1, engine2], folder)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer wrong",
        f"Bearer {CLIENT_KEY.upper()}",
        f"Bearer {CLIENT_KEY}x",
        f"Bearer x{CLIENT_KEY}",
        f"Bearer {CLIENT_KEY.replace('.', 'x')}",
        f"Basic {CLIENT_KEY}",
        f"Bearer {ENGINE_KEY}",
    ],
)
def test_a_wrong_key(balancer: Balancer, header: str):
    balancer.requests()
    response = balancer.client.open("/v1/chat/completions", b"{}", Authorization=header)
    assert response.status == 401
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert b'"code": "invalid_api_key"' in response.read()
    assert balancer.requests() == []


@pytest.mark.parametrize("header", [f"Bearer {CLIENT_KEY}", f"bearer {CLIENT_KEY}"])
def test_the_right_key_is_replaced_by_the_engines(balancer: Balancer, header: str):
    balancer.requests()
    answer = balancer.client.ask("/v1/chat/completions", b"{}", Authorization=header)
    assert answer == (200, {"path": "/v1/chat/completions", "bytes": 2})
    (request,) = balancer.requests()
    assert request["authorization"] == f"Bearer {ENGINE_KEY}"


def test_a_dead_replicas_posts_are_served_by_the_others(balancer: Balancer):
    balancer.requests()
    assert [balancer.client.ask("/v1/x", b"{}")[0] for _ in range(12)] == [200] * 12
    assert len(balancer.requests()) == 12
    assert all(engine.requests == [] for engine in balancer.engines)
    assert "Connection refused" in (balancer.folder / "error.log").read_text()


def test_what_an_engine_has_begun_is_not_executed_twice(balancer: Balancer):
    balancer.requests()
    status, answer = balancer.client.ask("/v1/break", b"{}")
    assert (status, answer["error"]["code"]) == (502, "bad_gateway")
    assert len(balancer.requests()) == 1


def test_a_stream_is_not_held_back(balancer: Balancer):
    for each in balancer.engines:
        each.go_on.clear()
    try:
        response = balancer.client.open("/v1/stream", b"{}")
        assert response.readline() == b"first\n"
    finally:
        for each in balancer.engines:
            each.go_on.set()
    assert response.read() == b"\nlast\n\n"


def test_http2(balancer: Balancer):
    context = balancer.client.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", balancer.client.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.selected_alpn_protocol() == "h2"
        assert secure.version() == "TLSv1.3"


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/docs", "/v1", "/v1/../metrics", "/v1/..%2fmetrics", "/v1//../docs"]
)
def test_nothing_else_is_there(balancer: Balancer, path: str):
    balancer.requests()
    status, answer = balancer.client.ask(path)
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert balancer.requests() == []


def test_the_balancers_own_health_needs_no_key(balancer: Balancer):
    balancer.requests()
    response = balancer.client.open("/health", Authorization="")
    assert (response.status, response.read()) == (200, b"ok\n")
    assert balancer.requests() == []


def test_bodies(balancer: Balancer):
    limit = 1024 * 1024
    assert balancer.client.ask("/v1/x", b"x" * limit) == (200, {"path": "/v1/x", "bytes": limit})
    status, answer = balancer.client.ask("/v1/x", b"x" * (limit + 1))
    assert (status, answer["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(("given", "kept"), [("req-1.a:b", True), ("", False), ('"x y"', False)])
def test_request_ids(balancer: Balancer, given: str, kept: bool):
    balancer.requests()
    response = balancer.client.open("/v1/models", None, **{"X-Request-ID": given})
    (request,) = balancer.requests()
    assert (request["X-Request-ID"] == given) is kept
    assert response.headers["X-Request-ID"] == request["X-Request-ID"]
    assert len(request["X-Request-ID"]) == (len(given) if kept else 32)


def test_the_log_holds_no_key(balancer: Balancer):
    balancer.client.ask("/v1/chat/completions", b"{}")
    log = (balancer.folder / "llm.access.log").read_text()
    assert '"path":"/v1/chat/completions","status":200' in log
    assert CLIENT_KEY not in log and ENGINE_KEY not in log


SYSTEMCTL = """#!/bin/sh
case "$1" in
    reload) kill -HUP "$(cat {folder}/nginx.pid)";;
    is-active) echo active;;
esac
"""


def shell(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script that is meant for a host on the nginx below `folder`."""
    stub = folder / "bin" / "systemctl"
    stub.parent.mkdir(exist_ok=True)
    stub.write_text(SYSTEMCTL.format(folder=folder))
    stub.chmod(0o755)
    path = f"{stub.parent}:{Path(program('nginx')).parent}:{os.environ['PATH']}"
    script = moved(script, folder).replace("/run/nginx.pid", f"{folder}/nginx.pid")
    return subprocess.run(
        ["sh", "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True
    )


def is_loaded(folder: Path) -> bool:
    """Whether the note says that nginx has loaded the files as they are."""
    digest, loaded = shell(folder, state_command()).stdout.splitlines()[2:4]
    return digest == loaded


def test_a_server_that_is_set_aside_gets_nothing_until_it_is_taken_back(tmp_path: Path):
    program("pgrep")
    port = free_port()
    certificate = make_certificate(tmp_path)
    with engine() as (port1, engine1), engine() as (port2, engine2):
        found = (
            Server("gpu1/r0", "127.0.0.1", port1),
            Server("gpu2/r0", "127.0.0.2", port2),
        )
        given = settings(tmp_path, port=port, ipv6=False)
        with (
            QuietServer(("127.0.0.2", port2), engine2) as second,
            running(install(tmp_path, site(given, found)), port),
        ):
            Thread(target=second.serve_forever, daemon=True).start()
            client = Client(port, certificate, CLIENT_KEY)
            live = Path(moved(SITE, tmp_path))
            before = live.read_bytes()

            def served() -> tuple[int, int]:
                for each in (engine1, engine2):
                    each.requests.clear()
                assert [client.ask("/v1/x", b"{}")[0] for _ in range(8)] == [200] * 8
                return len(engine1.requests), len(engine2.requests)

            assert min(served()) > 0
            done = shell(tmp_path, set_aside_script(["127.0.0.2"]))
            assert done.returncode == 0, done.stderr
            assert served() == (8, 0)
            assert is_loaded(tmp_path)
            # Nothing would be left: nginx is not even asked.
            done = shell(tmp_path, set_aside_script(["127.0.0.1"]))
            assert (done.returncode, served()) == (0, (8, 0))
            done = shell(tmp_path, take_back_script(["127.0.0.2"]))
            assert done.returncode == 0, done.stderr
            assert live.read_bytes() == before
            assert min(served()) > 0
            assert is_loaded(tmp_path)

            # A file that nginx would not take stays as it is, and so does the note.
            live.write_bytes(before + b"nonsense on;\n")
            note = Path(moved(LOADED, tmp_path)).read_text()
            done = shell(tmp_path, set_aside_script(["127.0.0.2"]))
            assert done.returncode == 1 and 'unknown directive "nonsense"' in done.stderr
            assert live.read_bytes() == before + b"nonsense on;\n"
            assert Path(moved(LOADED, tmp_path)).read_text() == note
        second.shutdown()


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        for target, content in texts(Path(scratch)).items():
            (EXPECTED / Path(target).name).write_text(content)
