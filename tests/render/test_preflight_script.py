"""The script itself, run on this machine."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from roles.driver import PART as DRIVER
from roles.hardware import PART as HARDWARE
from roles.host.paths import DEPLOY_LOCKS
from roles.host.question import Part, parse_answers, question
from roles.preflight import answers
from roles.preflight.answers import PreflightAnswers
from roles.preflight.questions import Questions, parts_of, url_part
from roles.tuning import PART as TUNING

ROLE = Path(__file__).parents[2] / "roles" / "preflight"
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]


class _Server(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        # Some servers answer only those who want the content.
        self.send_response({"/get-only": 405, "/missing": 404}.get(self.path, 200))
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def run(
    questions: Questions, *more: Part, shell: str = "sh", etc: Path = Path("/etc")
) -> PreflightAnswers:
    # As pyinfra does: the whole script is one argument. Nothing outside is asked for.
    way_out = "http://ann:s3cr3t@127.0.0.1:9"
    proxy = {"http_proxy": way_out, "https_proxy": way_out}
    environment = {**os.environ, **proxy, "no_proxy": "127.0.0.1"}
    text = question([*parts_of(questions), *more])
    text = text.replace("/etc/apt", f"{etc}/apt").replace("/etc/yum", f"{etc}/yum")
    script = [shell, "-c", text]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0
    assert "s3cr3t" not in done.stdout
    return answers.parse_preflight(parse_answers(done.stdout.splitlines()))


@pytest.mark.parametrize("shell", SHELLS)
def test_it_answers_here(shell: str, server: str, tmp_path: Path):
    weights, hub = tmp_path / "it's a model", tmp_path / "models--a--b"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    (weights / "model.safetensors").write_bytes(b"x" * 1000)
    gguf = weights / "model.gguf"
    gguf.symlink_to(tmp_path / "blob")
    (tmp_path / "blob").write_bytes(b"x" * 500)
    (hub / "blobs").mkdir(parents=True)
    (hub / "blobs" / "0f").write_bytes(b"x" * 700)
    (hub / "blobs" / "1f.incomplete").write_bytes(b"x" * 90)
    (tmp_path / "wheels").mkdir()
    for name in ("a.whl", "b.whl", "c.txt"):
        (tmp_path / "wheels" / name).touch()
    older = tmp_path / "python3.9"
    older.write_text("#!/bin/sh\ncase $2 in *version*) echo version 3.9.2 ;; *) exit 1 ;; esac\n")
    older.chmod(0o755)
    asked = Questions(
        pythons=("python3", str(older), "python3.99"),
        wheel_folders=(str(tmp_path / "wheels"), str(tmp_path), str(tmp_path / "none")),
        folders=("/", str(tmp_path / "not" / "there")),
        packages=("surely-no-such-package",),
        hub_folders=(str(hub),),
        weights_folders=(str(weights), str(gguf), str(tmp_path / "none")),
        urls=(
            ("there", f"{server}/there"),
            ("get", f"{server}/get-only"),
            ("missing", f"{server}/missing"),
            ("refused", "http://127.0.0.1:9/"),
            ("proxied", "http://example.com/"),
        ),
    )
    found = run(asked, shell=shell)
    assert found.clock_end - found.clock < 60
    assert found.glibc and found.folders["/"].free_bytes
    assert list(found.pythons) == ["python3", f"{tmp_path}/python3.9"]
    assert found.pythons["python3"].version
    assert found.pythons[f"{tmp_path}/python3.9"] == answers.Python((3, 9, 2), False)
    assert found.wheels == {str(tmp_path / "wheels"): 2, str(tmp_path): 0}
    assert found.folders[str(tmp_path / "not" / "there")].free_bytes
    own = {name: found.urls[name] for name in ("there", "get", "missing", "refused")}
    assert [reach.http_status for reach in own.values()] == [200, 200, 404, 0]
    assert [reach.exit_status for reach in own.values()] == [0, 0, 0, 7]
    assert found.urls["proxied"].exit_status in (5, 7)
    assert "http_proxy=***@127.0.0.1:9" in found.proxies
    if found.missing_packages is not None:
        assert found.missing_packages == ("surely-no-such-package",)
    if found.root:
        assert found.hub[str(hub)].sizes == (("-", 700),)
        assert dict(found.weights[str(weights)].sizes) == {
            "config.json": 2,
            "model.safetensors": 1000,
            "model.gguf": 500,
        }
        # A file alone is weights, too.
        assert found.weights[str(gguf)].sizes == (("model.gguf", 500),)
        assert found.weights[str(tmp_path / "none")].real is None


def test_what_only_a_report_tells_is_asked_beside(server: str):
    later = url_part((("driver-repository", f"{server}/missing"),), ("python3",))
    found = run(Questions(urls=(("there", f"{server}/there"),)), later)
    assert found.urls["driver-repository"].http_status == 404
    assert found.urls["there"].http_status == 200


def test_a_second_run_says_the_same():
    first, second = run(Questions()), run(Questions())
    changing = {"clock": 0, "clock_end": 0, "folders": {}, "urls": {}}
    assert replace(first, **changing) == replace(second, **changing)


DEBIAN_SOURCES = """\
Types: deb
URIs: http://127.0.0.1:9/debian/
Suites: trixie trixie-updates
Components: main
Enabled: yes

Types: deb-src
URIs: http://127.0.0.1:9/sources
Suites: trixie

Types: deb
URIs: http://127.0.0.1:9/off
Suites: trixie
Enabled: no
"""
LISTED = """\
# deb http://127.0.0.1:9/comment trixie main
deb [arch=amd64 signed-by=/x.gpg] http://bob:s3cr3t@127.0.0.1:9/flat ./
deb cdrom:[Debian]/ trixie main
deb-src http://127.0.0.1:9/src trixie main
"""
REPOSITORIES = """\
[baseos]
name=Rocky Linux $releasever
mirrorlist=http://127.0.0.1:9/mirrorlist?arch=$basearch&repo=BaseOS-$releasever
[off]
baseurl=http://127.0.0.2:9/x
enabled=0
[variable]
baseurl = https://$host.example/x
"""


def test_the_distributions_repositories(tmp_path: Path):
    apt, yum = tmp_path / "apt", tmp_path / "yum.repos.d"
    (apt / "sources.list.d").mkdir(parents=True)
    (apt / "sources.list.d" / "debian.sources").write_text(DEBIAN_SOURCES)
    (apt / "sources.list").write_text(LISTED)
    found = run(Questions(), shell=SHELLS[0], etc=tmp_path)
    assert found.distribution == (
        "http://127.0.0.1:9/debian/dists/trixie/",
        "http://***@127.0.0.1:9/flat/./",
    )
    assert {name for name in found.urls if name.startswith("distribution")} == {
        "distribution-1",
        "distribution-2",
    }
    shutil.rmtree(apt)
    yum.mkdir()
    (yum / "rocky.repo").write_text(REPOSITORIES)
    assert run(Questions(), shell=SHELLS[-1], etc=tmp_path).distribution == ("http://127.0.0.1:9/",)


def test_nothing_in_a_question_is_run(tmp_path: Path):
    evil = f"$(touch {tmp_path}/a)`touch {tmp_path}/b`'; touch {tmp_path}/c; '\"\\"
    run(
        Questions(
            pythons=(evil,),
            engine=evil,
            wheel_folders=(evil,),
            folders=(f"/{evil}",),
            packages=(evil,),
            hub_folders=(evil,),
            weights_folders=(evil,),
            urls=(("evil", evil),),
        )
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "end",
    [
        '\\ndump-header = "{folder}/evil"',
        '"\\ndump-header = "{folder}/evil',
        "\\ndump-header = {folder}/evil",
        '" \\\\ndump-header = {folder}/evil',
    ],
)
def test_a_url_says_nothing_else_to_curl(end: str, shell: str, server: str, tmp_path: Path):
    url = f"{server}/there{end.format(folder=tmp_path)}"
    found = run(Questions(urls=(("odd", url), ("good", f"{server}/there"))), shell=shell)
    assert list(tmp_path.iterdir()) == []
    assert found.urls["good"].http_status == 200


def test_python_says_what_curl_says(server: str):
    """Without curl the host's Python asks."""
    output = {}
    for path in ("/there", "/get-only", "/missing"):
        done = subprocess.run(
            [sys.executable, str(ROLE / "fetch.py")],
            env={"PREFLIGHT_URL": server + path},
            capture_output=True,
            text=True,
            timeout=300,
        )
        output[path] = done.stdout.strip()
    assert output == {
        "/there": "python 0 200",
        "/get-only": "python 0 200",
        "/missing": "python 0 404",
    }


@pytest.mark.parametrize("shell", SHELLS)
def test_who_holds_a_deploys_lock_is_found(shell: str, tmp_path: Path):
    lock = tmp_path / "lock"
    (part,) = (one for one in parts_of(Questions()) if one.root)
    script = part.script.replace(DEPLOY_LOCKS[0], str(lock))
    # What only root can ask of others, this user can ask of its own process.
    asked = Part(part.name, script)
    user = parts_of(Questions())[0]

    def other_deploy() -> answers.OtherDeploy | None:
        text = question([user, asked])
        done = subprocess.run([shell, "-c", text], capture_output=True, text=True, timeout=300)
        return answers.parse_preflight(parse_answers(done.stdout.splitlines())).other_deploy

    assert other_deploy() is None
    with lock.open("a") as file:
        file.write("20261130T032409Z-4f2a\n")
        file.flush()
        found = other_deploy()
    assert found is not None and found.seconds is not None
    assert (found.pid, found.run) == (os.getpid(), "20261130T032409Z-4f2a")
    assert other_deploy() is None


@pytest.mark.parametrize("name", ["ask.sh", "ask_root.sh", "reach.sh"])
def test_shellcheck_has_nothing_to_say(name: str):
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here")
    # The variables in capitals stand before.
    done = subprocess.run(
        ["shellcheck", "-s", "sh", "-e", "SC2154", str(ROLE / name)], capture_output=True, text=True
    )
    assert done.stdout == ""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE])
@pytest.mark.parametrize(
    ("parts", "slow"),
    [(parts_of(Questions()), "getconf"), ((HARDWARE,), "lspci"), ((DRIVER, TUNING), "df")],
)
def test_nothing_is_left_of_a_run_that_is_ended(
    parts: tuple[Part, ...], slow: str, how: signal.Signals, shell: str, tmp_path: Path
):
    """As when a connection breaks."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("mktemp", f"mkdir {tmp_path}/work.$$; echo {tmp_path}/work.$$"),
        (slow, f"touch {tmp_path}/asked; sleep 0.3"),
        *((name, "exit 1") for name in ("sudo", "curl", "nvidia-smi", "systemctl", "apt-get")),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    run_of = subprocess.Popen(
        [shell, "-c", question(parts)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
    )
    end = time.monotonic() + 100
    while not (tmp_path / "asked").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert list(tmp_path.glob("work.*"))
    assert run_of.stdout is not None
    run_of.stdout.close()
    if how != signal.SIGPIPE:
        run_of.send_signal(how)
    assert run_of.wait(120) != 0
    # What runs as root is nobody's to end: it ends by itself.
    while list(tmp_path.glob("work.*")) and time.monotonic() < end:
        time.sleep(0.01)
    assert not list(tmp_path.glob("work.*"))
