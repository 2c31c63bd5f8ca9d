"""The balancer's files as a whole: through the program's own check, and in a running program."""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from roles.balancer import (
    BalancerState,
    Match,
    Member,
    Route,
    Upstream,
)
from roles.balancer.certificate import names_command, parse_names
from roles.balancer.state import drain
from tests.unit.balancer.fleets import CLIENT_KEY, ENGINE_KEY, route, settings

from .balancer_host import BalancerHost
from .balancer_programs import (
    AUDIO,
    CHAT,
    CODE,
    NAMES,
    PROGRAMS,
    VISION,
    Program,
    files,
    make_certificate,
    moved,
    site,
)
from .balancer_server import (
    LIES,
    Client,
    Engine,
    asking,
    at,
    engine,
    free_port,
    served,
    two_engines,
)


def said(program: Program, folder: Path, texts: dict[str, str]) -> str:
    """What the program's check says of files, "" where they are right."""
    make_certificate(program, folder)
    program.install(folder, texts)
    done = program.checked(folder, {})
    return done.stderr or ("" if done.returncode == 0 else "failed without a word")


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Program:
    """Each program that can be the balancer."""
    return PROGRAMS[request.param]


def test_what_anybody_may_read_holds_no_key(program: Program, tmp_path: Path):
    found = files(program, settings(tmp_path), [CHAT, CODE, VISION, AUDIO])
    for file in found:
        known = [key for key in (CLIENT_KEY, ENGINE_KEY) if key in file.content]
        assert file.mode == "600" or not known, file.path


@pytest.mark.parametrize(
    "failures",
    [{}, {"gpu1/chat-0": "x\n}\nserver 6.6.6.6:80; # \u2028 ' \" {"}, {"gpu1/chat-0": "x"}],
)
@pytest.mark.parametrize("drained", [[], ["gpu1/*"], ["gpu1/*", "gpu2/*", "gpu3/*"]])
def test_the_program_takes_it(
    program: Program, tmp_path: Path, failures: dict[str, str], drained: list[str]
):
    given = settings(tmp_path, port=free_port(), ipv6=socket.has_ipv6)
    upstream = Upstream("chat", "llm_chat", CHAT.members, failures)
    # All at once may be out where that was announced.
    state, _ = drain(BalancerState((upstream,)), drained, "operator", "run", "now", ["chat"])
    assert said(program, tmp_path, site(program, given, [CHAT], state)) == ""


def test_the_program_takes_long_names_and_keys_and_a_thousand_replicas(
    program: Program, tmp_path: Path
):
    many = [
        Member(f"gpu{i}/r-{port}", f"gpu{i}", f"10.0.1.{i}", port)
        for i in range(100)
        for port in range(8000, 8010)
    ]
    long = "d" * 64
    own = [Match(f"/{'p' * 100}"), Match(server_name=f"{'n' * 30}.example.com")]
    routes = [
        route("default", *many, api_key="k" * 500, engine_key="e" * 500),
        *(route(f"{long[:62]}-{i}", *many[:1], match=match) for i, match in enumerate(own)),
    ]
    given = settings(tmp_path, port=free_port(), ipv6=False)
    assert said(program, tmp_path, site(program, given, routes)) == ""


def test_the_self_signed_certificate(program: Program, tmp_path: Path):
    path = make_certificate(program, tmp_path)
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


@pytest.mark.parametrize("change", ["", "nonsense on;\n"])
def test_the_check_sees_the_new_files_with_the_live_ones(
    program: Program, tmp_path: Path, change: str
):
    make_certificate(program, tmp_path)
    given = settings(tmp_path, port=free_port(), ipv6=False)
    main = program.install(tmp_path, site(program, given, [CHAT]))
    (main.parent / "dangling").symlink_to("/no/such/file")
    live = Path(moved(program.site, tmp_path))
    before = live.read_text()
    text = site(program, given, [CHAT])[program.site] + change
    done = program.checked(tmp_path, {program.site: text})
    assert done.returncode == (1 if change else 0), done.stderr
    if change:
        assert program.refuses in done.stderr
        assert f"{live}:{len(text.splitlines())}" in done.stderr
    assert live.read_text() == before


@dataclass
class Balancer:
    """A running balancer in front of two engines and a third that is dead."""

    program: Program
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
def balancer(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    folder = tmp_path_factory.mktemp("balancer")
    port = free_port()
    given = settings(folder, port=port, ipv6=False, max_body_mib=1)
    certificate = make_certificate(program, folder)
    with engine() as (port1, engine1), engine() as (port2, engine2):
        routes = [route("chat", *at("127.0.0.1", port1, port2, free_port()))]
        program.install(folder, site(program, given, routes))
        with program.running(folder, port):
            yield Balancer(
                program, Client(port, certificate, CLIENT_KEY), [engine1, engine2], folder
            )


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


def test_an_engine_speaks_for_itself_alone(balancer: Balancer):
    response = balancer.client.open("/v1/lie", b"{}")
    # Not the balancer's own page, which X-Accel-Redirect named.
    assert response.read() == b'{"path": "/v1/lie"}'
    assert response.headers.get_all("X-LLM-Replica") != [LIES["X-LLM-Replica"]]
    assert len(response.headers.get_all("X-LLM-Replica")) == 1
    assert response.headers["Server"] in ("nginx", None)
    said = {name.lower(): text for name, text in response.headers.items()}
    assert not [name for name, text in LIES.items() if said.get(name.lower()) == text]


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


def test_http2_is_offered_where_a_reload_loses_none(balancer: Balancer):
    context = balancer.client.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", balancer.client.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.version() == "TLSv1.3"
        assert (secure.selected_alpn_protocol() == "h2") is (balancer.program.kind == "haproxy")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metrics",
        "/docs",
        "/v1",
        "/v1/../metrics",
        "/v1/..%2fmetrics",
        "/v1//../docs",
        "/code/v1/models",
    ],
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
    assert (request["x-request-id"] == given) is kept
    assert response.headers["X-Request-ID"] == request["x-request-id"]
    assert len(request["x-request-id"]) == (len(given) if kept else 32)


LOGGED = (
    *("time", "client", "method", "path", "status", "bytes", "seconds", "service", "upstream"),
    *("upstream_status", "first_byte_seconds", "request_id"),
)


def test_the_log_holds_no_key(balancer: Balancer):
    id = {"X-Request-ID": "logged"}
    response = balancer.client.open('/v1/a%22"\\b', b"{}", **id)
    replica, _ = response.headers["X-LLM-Replica"], response.read()
    log, end = "", time.monotonic() + 10
    while "logged" not in log and time.monotonic() < end:
        log = balancer.program.log(balancer.folder)
    (line,) = [line for line in log.splitlines() if "logged" in line]
    logged = json.loads(line)
    assert logged.keys() >= set(LOGGED)
    assert (logged["service"], logged["status"], logged["upstream"]) == ("chat", 200, replica)
    assert logged["path"].startswith("/v1/a") and 0 <= logged["seconds"] < 60
    assert CLIENT_KEY not in log and ENGINE_KEY not in log


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 2\r\nContent-Length: 30\r\n",
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: +2\r\n",
        "X-Evil: a\0b\r\nContent-Length: 2\r\n",
        "X-Evil: a\rContent-Length: 99\r\nContent-Length: 2\r\n",
        " X-Evil: folded\r\nContent-Length: 2\r\n",
        "X Evil: a\r\nContent-Length: 2\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade, Content-Length\r\nContent-Length: 2\r\n",
    ],
)
def test_no_header_smuggles_a_request(balancer: Balancer, head: str):
    balancer.requests()
    inner = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    outer = f"POST /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CLIENT_KEY}\r\n{head}\r\n"
    with (
        socket.create_connection(("127.0.0.1", balancer.client.port), timeout=3) as plain,
        balancer.client.context().wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        contextlib.suppress(OSError),
    ):
        secure.sendall(f"{outer}{{}}{inner}".encode())
        while secure.recv(65536):
            pass
    reached = balancer.requests()
    assert [one["path"] for one in reached] in ([], ["/v1/x"])
    assert not any("upgrade" in one for one in reached)


def test_an_engine_sees_that_its_client_has_gone(balancer: Balancer):
    for each in balancer.engines:
        each.gone.clear()
    with pytest.raises(TimeoutError):
        Client(balancer.client.port, balancer.client.certificate, CLIENT_KEY, 1).open(
            "/v1/wait", b"{}"
        )
    assert any(each.gone.wait(5) for each in balancer.engines)


@pytest.mark.parametrize("alone", [True, False])
def test_no_replica_takes_a_request(program: Program, tmp_path: Path, alone: bool):
    certificate, port = make_certificate(program, tmp_path), free_port()
    dead = at("127.0.0.1", *[free_port() for _ in range(1 if alone else 3)])
    given = settings(tmp_path, port=port, ipv6=False)
    program.install(tmp_path, site(program, given, [route("chat", *dead)]))
    with program.running(tmp_path, port):
        client = Client(port, certificate, CLIENT_KEY)
        for _ in range(5):
            status, answer = client.ask("/v1/x", b"{}")
            assert (status, answer["error"]["code"]) == (502, "bad_gateway")


def test_requests_are_shared_by_weights(program: Program, tmp_path: Path):
    certificate = make_certificate(program, tmp_path)
    with two_engines() as (port, engines, (one, other)):
        given = settings(tmp_path, port=port, ipv6=False)
        routes = [route("chat", replace(one, weight=300), replace(other, weight=100))]
        program.install(tmp_path, site(program, given, routes))
        for each in engines:
            each.go_on.clear()
        with program.running(tmp_path, port):
            client = Client(port, certificate, CLIENT_KEY)
            streams = [client.open("/v1/stream", b"{}") for _ in range(8)]
            assert [len(each.requests) for each in engines] == [6, 2]
            for each in engines:
                each.go_on.set()
            assert all(b"last" in stream.read() for stream in streams)


@dataclass
class Services:
    """Four services behind one balancer: the endpoint's own, by prefix, by name, by port."""

    folder: Path
    port: int
    own_port: int
    certificate: Path
    engines: dict[str, type[Engine]]

    def ask(self, service: str, path: str = "/v1/chat/completions", key: str = "", **headers: str):
        """Status and answer of a request by the route of a service."""
        port = self.own_port if service == "audio" else self.port
        prefix = "/code" if service == "code-7b" else ""
        if service == "vision":
            headers["Host"] = "v.example.com"
        client = Client(port, self.certificate, key or f"client-key-of-{service}")
        for one in self.engines.values():
            one.requests.clear()
        return client.ask(f"{prefix}{path}", b"{}", **headers)

    def reached(self) -> dict[str, str | None]:
        """The services whose engines got a request, and with which key."""
        return {
            service: one.requests[0].get("authorization")
            for service, one in self.engines.items()
            if one.requests
        }


SERVICES = {
    "chat": Match(),
    "code-7b": Match("/code"),
    "vision": Match(server_name="v.example.com"),
    "audio": Match(),
}


@pytest.fixture(scope="module")
def services(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    port, own_port = free_port(), free_port()
    certificate = make_certificate(program, folder)
    with ExitStack() as stack:
        routes, engines = [], {}
        for service, match in SERVICES.items():
            engine_port, engines[service] = stack.enter_context(engine())
            routes.append(
                Route(
                    service,
                    "tiny",
                    tuple(at("127.0.0.1", engine_port)),
                    Match(port=own_port) if service == "audio" else match,
                    api_key=f"client-key-of-{service}",
                    # The engines of one take none.
                    engine_key=None if service == "code-7b" else f"engine-key-of-{service}",
                )
            )
        given = settings(folder, port=port, ipv6=False)
        program.install(folder, site(program, given, routes))
        stack.enter_context(program.running(folder, port))
        yield Services(folder, port, own_port, certificate, engines)


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_has_its_route_and_its_keys(services: Services, service: str):
    status, answer = services.ask(service)
    # The prefix of a route is no business of its engines.
    assert (status, answer["path"]) == (200, "/v1/chat/completions")
    key = None if service == "code-7b" else f"Bearer engine-key-of-{service}"
    assert services.reached() == {service: key}


@pytest.mark.parametrize("service", SERVICES)
def test_the_key_of_one_service_opens_no_other(services: Services, service: str):
    for other in SERVICES.keys() - {service}:
        assert services.ask(service, key=f"client-key-of-{other}")[0] == 401
    assert services.reached() == {}


@pytest.mark.parametrize("path", ["/v1", "/v1/../metrics", "/metrics", "/v1/..%2fmetrics"])
@pytest.mark.parametrize("service", SERVICES)
def test_no_service_shows_more_than_its_api(services: Services, service: str, path: str):
    assert services.ask(service, path)[0] == 404
    assert services.reached() == {}


@pytest.mark.parametrize("path", ["/v1/a%20b", "/v1/files/x?y=1&z=%2F"])
@pytest.mark.parametrize("service", SERVICES)
def test_the_rest_of_a_path_is_handed_on(services: Services, service: str, path: str):
    assert services.ask(service, path) == (200, {"path": path, "bytes": 2})


def test_drains(program: Program, tmp_path: Path):
    certificate = make_certificate(program, tmp_path)
    with two_engines() as (port, engines, found):
        given = settings(tmp_path, port=port, ipv6=False)
        host = BalancerHost(tmp_path, program)
        program.install(tmp_path, {})
        host.write(files(program, given, [route("chat", *found)]))
        with program.running(tmp_path, port):
            client = Client(port, certificate, CLIENT_KEY)
            before = host.read(program.upstreams)

            assert min(served(client, engines)) > 0
            with asking(client) as statuses:
                host.drain("gpu2/*", owner="rolling-update")
                assert host.standing.loaded and host.reloads == 1
                engines[1].requests.clear()
                host.drain("gpu2/r-0")
                assert host.reloads == 1, "it is out already"
                # Nothing would be left.
                host.drain("gpu1/r-0", owner="rolling-update")
                assert host.reloads == 1
                (warning,) = host.warnings
                assert warning.startswith("gpu1/r-0 is not drained")
                assert served(client, engines[1:]) == (0,)
                host.undrain("gpu2/*", owner="rolling-update")
                assert host.reloads == 1, "an operator has it out"
                host.undrain("gpu2/*")
                assert host.standing.loaded and host.reloads == 2
            assert set(statuses) == {200} and len(statuses) > 20
            assert host.read(program.upstreams) == before
            assert min(served(client, engines)) > 0

            # What the program would not take is not installed.
            live = Path(moved(program.site, tmp_path))
            good = live.read_text()
            live.write_text(f"{good}nonsense on;\n")
            with pytest.raises(AssertionError, match=program.refuses):
                host.drain("gpu2/*", owner="rolling-update")
            assert host.read(program.upstreams) == before
            live.write_text(good)

            # A run that was killed before it reloaded is made good by the next.
            Path(moved(program.loaded, tmp_path)).unlink()
            host.undrain("gpu2/*", owner="rolling-update")
            assert host.standing.loaded


def test_a_drain_ends_no_stream_and_no_open_connection(program: Program, tmp_path: Path):
    certificate = make_certificate(program, tmp_path)
    with two_engines() as (port, engines, found):
        given = settings(tmp_path, port=port, ipv6=False)
        host = BalancerHost(tmp_path, program)
        program.install(tmp_path, {})
        host.write(files(program, given, [route("chat", *found)]))
        for each in engines:
            each.go_on.clear()
        with program.running(tmp_path, port):
            client = Client(port, certificate, CLIENT_KEY)
            streams = [client.open("/v1/stream", b"{}") for _ in range(4)]
            assert [len(each.requests) for each in engines] == [2, 2]
            idle = [client.connected() for _ in range(4)]
            host.drain("gpu2/*")
            engines[1].requests.clear()
            answers = {client.status_on(connection) for connection in idle}
            assert engines[1].requests == []
            host.undrain("gpu2/*")
            # An nginx that reloads closes open connections, which loses what is just being sent.
            assert answers == ({200} if program.kind == "haproxy" else {None})
            for each in engines:
                each.go_on.set()
            assert all(b"last" in stream.read() for stream in streams)
