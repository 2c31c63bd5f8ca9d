"""The balancer's files as a whole: their text, through `nginx -t`, and in a running nginx.

`python -m tests.render.test_nginx` writes the expected texts anew.
"""

import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import pytest

from roles.balancer import (
    BalancerSettings,
    BalancerState,
    Match,
    Member,
    Route,
    Upstream,
    operations,
)
from roles.balancer.certificate import make_script, names_command, parse_names
from roles.balancer.deployment import BalancerDeployment
from roles.balancer.kinds import KINDS
from roles.balancer.nginx import paths
from roles.balancer.nginx.paths import SELF_SIGNED, SITE, UPSTREAMS
from roles.balancer.nginx.scripts import check
from roles.balancer.state import STATE, drain, planned_state
from roles.host import HostFile
from tests.unit.balancer.fleets import CLIENT_KEY, ENGINE_KEY, members, route, settings

from .balancer_host import BalancerHost
from .balancer_server import (
    LIES,
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

NGINX = KINDS["nginx"]
EXPECTED = Path(__file__).parent / "nginx"
OLD = Path(__file__).parents[1] / "data" / "balancer-eaed66b"
NAMES = ("DNS:llm.example.com", "IP:127.0.0.1")


CHAT = route()
CODE = route("code-7b", *members("code-7b", gpu2=[9000]), match=Match("/code"), engine_key=None)
VISION = route("vision", *members("vision", gpu3=[9001]), match=Match(server_name="v.example.com"))
AUDIO = route("audio", *members("audio", gpu3=[9002]), match=Match(port=8443))


def texts(folder: Path) -> dict[str, str]:
    """The files of four services, one with a drained and a failing member, by path."""
    given = settings(folder, server_name="llm.example.com")
    state = planned_state(None, [CHAT, CODE, VISION, AUDIO], given, "run", "now")
    state, _ = drain(state, ["gpu2/chat-0"], "operator", "run", "now")
    chat = replace(state.upstreams[0], failures={"gpu1/chat-1": "HTTP 500"})
    state = replace(state, upstreams=(chat, *state.upstreams[1:]))
    return site(given, [CHAT, CODE, VISION, AUDIO], state)


def site(
    given: BalancerSettings, routes: Sequence[Route], state: BalancerState | None = None
) -> dict[str, str]:
    """All files of a balancer with a self-signed certificate, by path."""
    return {file.path: file.content for file in files(given, routes, state)}


def files(
    given: BalancerSettings, routes: Sequence[Route], state: BalancerState | None = None
) -> list[HostFile]:
    return [
        *NGINX.upstream_files(state or planned_state(None, routes, given, "run", "now")),
        *map(NGINX.engine_key_file, routes),
        *NGINX.site_files(given, routes),
    ]


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


@pytest.mark.parametrize("path", [SITE, UPSTREAMS, STATE])
def test_text(tmp_path: Path, path: str):
    assert texts(tmp_path)[path] == (EXPECTED / Path(path).name).read_text()


def test_only_the_key_of_the_service_is_right(tmp_path: Path):
    pattern, right = texts(tmp_path)[paths.client_keys("code-7b")].rsplit(" ", 1)
    assert right == "1;\n"
    expression = pattern.strip('"').removeprefix("~")
    key = "sk-test.client~key+0123/456789=="
    for header in (f"code-7b Bearer {key}", f"code-7b bearer {key}"):
        assert re.search(expression, header)
    for header in (
        f"chat Bearer {key}",
        f"code-7b Bearer x{key}",
        f"code-7b Bearer {key}=",
        "code-7b",
    ):
        assert not re.search(expression, header)


def test_engines_get_their_own_key_or_none(tmp_path: Path):
    found = texts(tmp_path)
    assert found[paths.engine_key("chat")].endswith(' "Bearer engine-key-0123456789";\n')
    assert found[paths.engine_key("code-7b")].endswith(' "";\n')


def test_what_anybody_may_read_holds_no_key(tmp_path: Path):
    found = texts(tmp_path)
    for path in (SITE, UPSTREAMS, STATE):
        assert CLIENT_KEY not in found[path] and ENGINE_KEY not in found[path]


@pytest.mark.parametrize(
    "failures",
    [{}, {"gpu1/chat-0": "x\n}\nserver 6.6.6.6:80; # \u2028 ' \" {"}, {"gpu1/chat-0": "x"}],
)
@pytest.mark.parametrize("drained", [[], ["gpu1/*"], ["gpu1/*", "gpu2/*", "gpu3/*"]])
def test_nginx_takes_it(tmp_path: Path, failures: dict[str, str], drained: list[str]):
    given = settings(tmp_path, port=free_port(), ipv6=socket.has_ipv6)
    upstream = Upstream("chat", "llm_chat", CHAT.members, failures)
    # All at once may be out where that was announced.
    state, _ = drain(BalancerState((upstream,)), drained, "operator", "run", "now", ["chat"])
    assert nginx_t(tmp_path, site(given, [CHAT], state)) == ""


def test_nginx_takes_long_names_and_keys_and_a_thousand_replicas(tmp_path: Path):
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
    assert nginx_t(tmp_path, site(given, routes)) == ""


def test_an_own_template(tmp_path: Path):
    own = tmp_path / "own.j2"
    proxied = "proxy_pass http://llm_chat;"
    ports = "{% for s in sites %}{{ s.port }}{% endfor %}"
    own.write_text(f"include {{{{ upstreams_file }}}};\n{proxied}\n{ports}\n")
    text = site(settings(tmp_path, template=own), [CHAT, AUDIO])[SITE]
    assert text == f"include {UPSTREAMS};\n{proxied}\n4438443"


def test_the_self_signed_certificate(tmp_path: Path):
    path = make_certificate(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    message = subprocess.run(
        ["sh", "-c", names_command(str(path))], capture_output=True, text=True, check=True
    )
    assert parse_names(message.stdout) == set(NAMES)
    path.write_text("broken")
    message = subprocess.run(
        ["sh", "-c", names_command(str(path))], capture_output=True, text=True, check=True
    )
    assert message.stdout == ""


@pytest.mark.parametrize(
    ("change", "message"), [("", ""), ("nonsense on;\n", 'unknown directive "nonsense" in {live}')]
)
def test_the_check_sees_the_new_files_with_the_live_ones(tmp_path: Path, change: str, message: str):
    """The check is run as `roles.host.operations.present` does, over a copy of a host's files."""
    program("nginx")
    folder, stage = tmp_path / "host", tmp_path / "stage"
    make_certificate(folder)
    main = install(folder, site(settings(tmp_path, port=free_port(), ipv6=False), [CHAT]))
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
    assert message.format(live=live) in done.stderr
    assert live.read_text() == before and staged.read_text() == before + change


def at(address: str, *ports: int, host: str = "gpu1") -> list[Member]:
    """Members at ports of an address."""
    return [Member(f"{host}/r-{i}", host, address, port) for i, port in enumerate(ports)]


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
        routes = [route("chat", *at("127.0.0.1", port1, port2, free_port()))]
        with running(install(folder, site(given, routes)), port):
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


def test_an_engine_speaks_for_itself_alone(balancer: Balancer):
    response = balancer.client.open("/v1/lie", b"{}")
    # Not the balancer's own page, which X-Accel-Redirect named.
    assert response.read() == b'{"path": "/v1/lie"}'
    assert response.headers.get_all("X-LLM-Replica") != [LIES["X-LLM-Replica"]]
    assert len(response.headers.get_all("X-LLM-Replica")) == 1
    assert response.headers.get_all("Server") == ["nginx"]
    message = {name.lower(): text for name, text in response.headers.items()}
    assert not [name for name, text in LIES.items() if message.get(name.lower()) == text]


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


def test_no_http2_whose_requests_a_reload_loses(balancer: Balancer):
    context = balancer.client.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", balancer.client.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.selected_alpn_protocol() in ("http/1.1", None)
        assert secure.version() == "TLSv1.3"


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
    assert (request["X-Request-ID"] == given) is kept
    assert response.headers["X-Request-ID"] == request["X-Request-ID"]
    assert len(request["X-Request-ID"]) == (len(given) if kept else 32)


def test_the_log_holds_no_key(balancer: Balancer):
    balancer.client.ask("/v1/chat/completions", b"{}")
    log = (balancer.folder / "llm.access.log").read_text()
    assert '"path":"/v1/chat/completions","status":200' in log
    assert '"service":"chat"' in log
    assert CLIENT_KEY not in log and ENGINE_KEY not in log


@dataclass
class Services:
    """Four services behind one nginx: the endpoint's own, by prefix, by name, by port."""

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
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    program("nginx")
    folder = tmp_path_factory.mktemp("services")
    port, own_port = free_port(), free_port()
    certificate = make_certificate(folder)
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
        stack.enter_context(running(install(folder, site(given, routes)), port))
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


def test_an_old_balancer_that_is_not_drained_first(tmp_path: Path):
    """Its keys are those of its service before anybody is asked, so that they can stay."""
    program("pgrep")
    make_certificate(tmp_path)
    host, port = BalancerHost(tmp_path), free_port()
    text = (OLD / "llm.conf").read_text().replace("listen 443 ", f"listen {port} ")
    text = "".join(line for line in text.splitlines(True) if "listen [::]" not in line)
    keys = HostFile(paths.OLD_KEYS, (OLD / "keys.conf").read_text(), mode="600")
    host.write([HostFile(SITE, text), keys])
    with running(install(tmp_path, {}), port):
        given = settings(tmp_path, port=port, ipv6=False)
        deployment = BalancerDeployment(NGINX, given, [CHAT], "r")
        host.run(operations.install, deployment=deployment)
        assert deployment.old and deployment.old.upstream("qwen2.5-14b")
        assert paths.engine_key("qwen2.5-14b") in deployment.found.files
        assert host.reloads == 1 and host.standing.loaded
        assert len(deployment.warnings) == 4, "all four vanished"


OWN_ARGUMENTS: dict[Any, dict[str, Any]] = {
    operations.drain: {"interrupted": tuple, "note_kept": lambda ids: None},
    operations.undrain: {"proved": dict},
}


def test_drains(tmp_path: Path):
    program("pgrep")
    certificate = make_certificate(tmp_path)
    with two_engines() as (port, engines, found):
        given = settings(tmp_path, port=port, ipv6=False)
        host = BalancerHost(tmp_path)
        host.write(files(given, [route("chat", *found)]))
        with running(install(tmp_path, {}), port):
            client = Client(port, certificate, CLIENT_KEY)
            before = host.read(UPSTREAMS)

            def change(operation: Any, *ids: str, owner: str = "rolling-update") -> None:
                own = OWN_ARGUMENTS[operation]
                host.run(
                    operation, balancer=NGINX, replicas=lambda: ids, owner=owner, run="r", **own
                )

            assert min(served(client, engines)) > 0
            with asking(client) as statuses:
                change(operations.drain, "gpu2/*")
                assert host.standing.loaded and host.reloads == 1
                engines[1].requests.clear()
                change(operations.drain, "gpu2/r-0", owner="operator")
                assert host.reloads == 1, "it is out already"
                # Nothing would be left.
                change(operations.drain, "gpu1/r-0")
                assert host.reloads == 1
                (warning,) = host.warnings
                assert warning.startswith("gpu1/r-0 is not drained")
                assert served(client, engines[1:]) == (0,)
                change(operations.undrain, "gpu2/*")
                assert host.reloads == 1, "an operator has it out"
                change(operations.undrain, "gpu2/*", owner="operator")
                assert host.standing.loaded and host.reloads == 2
            assert set(statuses) == {200} and len(statuses) > 20
            assert host.read(UPSTREAMS) == before
            assert min(served(client, engines)) > 0

            # What nginx would not take is not installed.
            live = Path(moved(SITE, tmp_path))
            good = live.read_text()
            live.write_text(f"{good}nonsense on;\n")
            with pytest.raises(AssertionError, match="unknown directive"):
                change(operations.drain, "gpu2/*")
            assert host.read(UPSTREAMS) == before
            live.write_text(good)

            # A run that was killed before it reloaded is made good by the next.
            Path(moved(paths.LOADED, tmp_path)).unlink()
            change(operations.undrain, "gpu2/*")
            assert host.standing.loaded


def test_an_old_balancer_is_taken_over_without_a_lost_request(tmp_path: Path):
    program("pgrep")
    certificate = make_certificate(tmp_path)
    with two_engines() as (port, engines, found):
        text = (OLD / "llm.conf").read_text().replace("listen 443 ", f"listen {port} ")
        text = "".join(line for line in text.splitlines(True) if "listen [::]" not in line)
        new = [f"{m.endpoint} " for m in found]
        for old, endpoint in zip(("10.0.0.1:8001 ", "10.0.0.2:8001 "), new, strict=True):
            text = text.replace(old, endpoint)
        keep = ("10.0.0.1:8002", "[fd00::3]")
        text = "".join(line for line in text.splitlines(True) if not any(k in line for k in keep))
        host = BalancerHost(tmp_path)
        keys = HostFile(paths.OLD_KEYS, (OLD / "keys.conf").read_text(), mode="600")
        host.write([HostFile(SITE, text), keys])
        with running(install(tmp_path, {}), port):
            client = Client(port, certificate, CLIENT_KEY)
            with asking(client) as statuses:
                id = "gpu2/qwen2.5-14b-0"
                drained = {"balancer": NGINX, "owner": "operator", "run": "r"}
                own = OWN_ARGUMENTS[operations.drain]
                host.run(operations.drain, replicas=lambda: [id], **drained, **own)
                assert host.reloads == 2 and host.standing.loaded
                engines[1].requests.clear()
                assert served(client, engines[1:]) == (0,)
                own = OWN_ARGUMENTS[operations.undrain]
                host.run(operations.undrain, replicas=lambda: [id], **drained, **own)
                assert min(served(client, engines)) > 0
                # The end of the deploy: the same service, written anew, with the same keys.
                service = "qwen2.5-14b"
                ids = [replace(m, id=f"{m.host}/{service}-0") for m in found]
                given = settings(tmp_path, port=port, ipv6=False)
                deployment = BalancerDeployment(NGINX, given, [route(service, *ids)], "r")
                host.run(operations.install, deployment=deployment)
                host.run(operations.write_site, deployment=deployment)
                host.run(operations.run_program, deployment=deployment)
                assert host.reloads == 4 and min(served(client, engines)) > 0
            assert set(statuses) == {200} and len(statuses) > 20
            left = host.standing.files
            assert paths.OLD_KEYS not in left and paths.engine_key(service) in left
            assert "upstream llm_qwen2.5-14b {" in host.read(UPSTREAMS)
            host.run(operations.install, deployment=deployment)
            assert host.run(operations.write_site, deployment=deployment) is None, "nothing differs"


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        for target in (SITE, UPSTREAMS, STATE):
            (EXPECTED / Path(target).name).write_text(texts(Path(scratch))[target])
