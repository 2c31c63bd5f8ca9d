"""Each balancer program for real, with the rendered files in a folder of its own."""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from roles.balancer import BalancerSettings, BalancerState, Match, Route
from roles.balancer.balancer import Balancer
from roles.balancer.certificate import make_script
from roles.balancer.haproxy import paths as haproxy_paths
from roles.balancer.kinds import KINDS
from roles.balancer.nginx import paths as nginx_paths
from roles.balancer.state import drain, planned_state
from roles.host import HostFile
from tests.unit.balancer.fleets import members, route, settings

from .balancer_server import listens, program

NGINX_MAIN = """
{user}daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/etc/nginx/conf.d/*.conf;
}}
"""
# As Debian's, but for what needs root and another user.
HAPROXY_MAIN = """
global
    stats socket {folder}/admin.sock mode 660 level admin
    stats timeout 30s
    maxconn 1000

defaults
    mode http
    timeout connect 5000
    timeout client 50000
    timeout server 50000
"""


PLACES = {
    "/etc/nginx": "/etc/nginx",
    "/etc/haproxy": "/etc/haproxy",
    "/etc/systemd": "/etc/systemd",
    "/etc/llm": "/etc/llm",
    "/run/nginx.pid": "/nginx.pid",
    haproxy_paths.PID: "/haproxy.pid",
    haproxy_paths.MASTER: "/master.sock",
    "/var/log/nginx": "",
}
"""Paths of a host, and where they are below a test's folder."""


def moved(text: str, folder: Path) -> str:
    """The text with a host's paths turned to those below `folder`."""
    for path, place in PLACES.items():
        text = text.replace(path, f"{folder}{place}")
    return text


def moved_back(text: str, folder: Path) -> str:
    """The text with paths below `folder` turned to those of a host."""
    for path, place in PLACES.items():
        text = text.replace(f"{folder}{place}", path)
    return text


@dataclass(frozen=True)
class Program:
    """A program, and where its files are in a test.

    `reload` is what its unit does on `systemctl reload`; `refuses` is what it says of a word that
    it does not know.
    """

    kind: str
    main: str
    main_text: str
    upstreams: str
    self_signed: str
    loaded: str
    command: Sequence[str]
    reload: str
    refuses: str

    @property
    def balancer(self) -> Balancer:
        """What a deploy knows of it."""
        return KINDS[self.kind]

    @property
    def site(self) -> str:
        """The file that makes it serve."""
        return self.balancer.site

    def install(self, folder: Path, files: Mapping[str, str]) -> Path:
        """Write files meant for a host below `folder` instead; the main file's path."""
        main = Path(moved(self.main, folder))
        (main.parent / "conf.d").mkdir(parents=True, exist_ok=True)
        user = "user root;\n" if os.geteuid() == 0 else ""
        main.write_text(self.main_text.format(folder=folder, user=user))
        for path, text in files.items():
            target = Path(moved(path, folder))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(moved(text, folder))
        return main

    def log(self, folder: Path) -> str:
        """What it has logged of requests."""
        return (folder / "llm.access.log").read_text()

    def checked(self, folder: Path, staged: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Its check of files that replace the installed ones, as an operation runs it."""
        stage = folder / "stage"
        (stage / moved(self.main, folder).lstrip("/")).parent.mkdir(parents=True)
        for path, text in staged.items():
            target = stage / moved(path, folder).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(moved(text, folder))
        check = moved(self.balancer.check(), folder)
        path = f"{Path(program(self.kind)).parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", "-c", f"set -eu; STAGE={stage}; ( {check} ) || exit 1"],
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
        )

    @contextmanager
    def running(self, folder: Path, port: int) -> Iterator[None]:
        """Run it until the block ends."""
        words = [word.format(folder=folder) for word in self.command]
        # nginx writes this file by itself.
        with (folder / ("llm.access.log" if self.kind == "haproxy" else "out")).open("a") as out:
            process = subprocess.Popen(
                [program(words[0]), *words[1:]], stdout=out, stderr=subprocess.STDOUT
            )
        try:
            end = time.monotonic() + 60
            while not listens(port):
                assert process.poll() is None, Path(out.name).read_text()
                assert time.monotonic() < end, f"{self.kind} does not listen on {port}"
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.communicate(timeout=60)


NGINX = Program(
    "nginx",
    f"{nginx_paths.ROOT}/nginx.conf",
    NGINX_MAIN,
    nginx_paths.UPSTREAMS,
    nginx_paths.SELF_SIGNED,
    nginx_paths.LOADED,
    ("nginx", "-c", "{folder}/etc/nginx/nginx.conf"),
    'kill -HUP "$(cat {folder}/nginx.pid)"',
    'unknown directive "nonsense" in',
)
_HAPROXY_FILES = " ".join(
    f"-f {{folder}}{path}" for path in (haproxy_paths.MAIN, *haproxy_paths.LOADS)
)
HAPROXY = Program(
    "haproxy",
    haproxy_paths.MAIN,
    HAPROXY_MAIN,
    haproxy_paths.UPSTREAMS,
    haproxy_paths.SELF_SIGNED,
    haproxy_paths.LOADED,
    (
        *("haproxy", "-Ws", *_HAPROXY_FILES.split()),
        *("-p", "{folder}/haproxy.pid", "-S", "{folder}/master.sock"),
    ),
    f'haproxy -c -q {_HAPROXY_FILES} && kill -USR2 "$(cat {{folder}}/haproxy.pid)"',
    "unknown keyword 'nonsense'",
)
PROGRAMS = {one.kind: one for one in (NGINX, HAPROXY)}

NAMES = ("DNS:llm.example.com", "IP:127.0.0.1")
CHAT = route()
CODE = route("code-7b", *members("code-7b", gpu2=[9000]), match=Match("/code"), engine_key=None)
VISION = route("vision", *members("vision", gpu3=[9001]), match=Match(server_name="v.example.com"))
AUDIO = route("audio", *members("audio", gpu3=[9002]), match=Match(port=8443))


def texts(program: Program, folder: Path) -> dict[str, str]:
    """The files of four services, one with a drained and a failing member, by path."""
    given = settings(folder, server_name="llm.example.com")
    state = planned_state(None, [CHAT, CODE, VISION, AUDIO], given, "run", "now")
    state, _ = drain(state, ["gpu2/chat-0"], "operator", "run", "now")
    chat = replace(state.upstreams[0], failures={"gpu1/chat-1": "HTTP 500"})
    state = replace(state, upstreams=(chat, *state.upstreams[1:]))
    return site(program, given, [CHAT, CODE, VISION, AUDIO], state)


def site(
    program: Program,
    given: BalancerSettings,
    routes: Sequence[Route],
    state: BalancerState | None = None,
) -> dict[str, str]:
    """All files of a balancer with a self-signed certificate, by path."""
    return {file.path: file.content for file in files(program, given, routes, state)}


def files(
    program: Program,
    given: BalancerSettings,
    routes: Sequence[Route],
    state: BalancerState | None = None,
) -> list[HostFile]:
    """All files of a balancer, with their modes."""
    return [
        *program.balancer.upstream_files(state or planned_state(None, routes, given, "run", "now")),
        *map(program.balancer.engine_key_file, routes),
        *program.balancer.site_files(given, routes),
    ]


def make_certificate(one: Program, folder: Path) -> Path:
    """A self-signed certificate where the program's is."""
    program("openssl")
    path = Path(moved(one.self_signed, folder))
    subprocess.run(["sh", "-c", make_script(str(path), NAMES)], check=True)
    return path
