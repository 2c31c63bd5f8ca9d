"""The script that installs vLLM, run here: nothing but what is locked gets in."""

import contextlib
import functools
import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from roles.engine import VllmSettings, deployment
from roles.engine.__main__ import main
from roles.engine.lock import entries, problem_of
from roles.host import PROGRESS

UV = "uv==0.13.8"


def wheel(folder: Path, name: str, version: str, program: str) -> str:
    """Write a wheel that brings a program of its name; its SHA-256."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}-{version}.data/scripts/{name}": f"#!/bin/sh\n{program}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in (files | {f"{info}/RECORD": record}).items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, text)
    return hashlib.sha256(file.read_bytes()).hexdigest()


REAL_UV = Path(sys.executable).with_name("uv")


@pytest.mark.parametrize("changed", ["nothing", "uv", "vllm"])
def test_a_package_that_is_not_the_locked_one_is_not_installed(tmp_path: Path, changed: str):
    wheels, engines, ran = tmp_path / "wheels", tmp_path / "engines", tmp_path / "ran"
    wheels.mkdir()
    programs = {"uv": f'exec {REAL_UV} "$@"', "vllm": "echo vllm 0.33.0"}
    versions = {"uv": "0.13.8", "vllm": "0.33.0"}
    digests = {name: wheel(wheels, name, versions[name], text) for name, text in programs.items()}
    lock = tmp_path / "lock"
    lock.write_text(
        "".join(f"{n}=={versions[n]} \\\n    --hash=sha256:{d}\n" for n, d in digests.items())
    )
    settings = VllmSettings(lock=lock, wheelhouse=str(wheels), python="python3")
    if changed != "nothing":
        wheel(wheels, changed, versions[changed], f"touch {ran}\n{programs[changed]}")
    installation = deployment(settings).installation(settings)
    script = installation.script.replace("/opt/llm/engines", str(engines))
    done = subprocess.run(
        ["sh", "-c", script],
        input=installation.stdin,
        env=dict(os.environ) | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    complete = (engines / settings.version_name / ".complete").exists()
    assert (done.returncode == 0, complete, ran.exists()) == (
        (True, True, False) if changed == "nothing" else (False, False, False)
    ), done.stderr
    printed = [line.removeprefix(PROGRESS).partition(" ") for line in done.stdout.splitlines()]
    assert {name for name, _, _ in printed} == {settings.version_name}
    whole = ["environment", "download and install packages", "first start"]
    phases = [phase for _, _, phase in printed]
    assert phases == whole[: len(phases)] and (changed != "nothing" or phases == whole)
    if changed != "nothing":
        assert "hash" in done.stderr.lower()


def test_a_lock_is_made_by_a_command(tmp_path: Path):
    digests = {
        "vllm": wheel(tmp_path, "vllm", "0.33.0", ""),
        "uv": wheel(tmp_path, "uv", "0.13.8", ""),
    }
    done = subprocess.run(
        [sys.executable, "-m", "roles.engine", "lock", "vllm==0.33.0", "--wheelhouse", tmp_path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    found = entries(done.stdout)
    assert problem_of(done.stdout, UV) == "" and found.keys() == {"vllm==0.33.0", UV}
    assert all(digest in found[f"{name}=={v}"] for (name, digest), v in
               zip(digests.items(), ("0.33.0", "0.13.8"), strict=True))  # fmt: skip


@contextlib.contextmanager
def index(folder: Path) -> Iterator[str]:
    """The URL of an index: its folders list the wheels of each package."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    "variable", ["UV_FIND_LINKS", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_OVERRIDE", "UV_CONSTRAINT"]
)
def test_a_lock_has_nothing_that_this_machine_alone_would_take(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
):
    """A build for CPUs of the same version, where uv is told to look here."""
    wheels, local, digests = tmp_path / "wheels", tmp_path / "local", list[str]()
    for name in ("uv", "sglang"):
        (wheels / name).mkdir(parents=True)
        digests.append(wheel(wheels / name, name, "0.13.8", "true"))
    (local / "sglang").mkdir(parents=True)
    other = wheel(local / "sglang", "sglang", "0.13.8", "echo for CPUs")
    (local / "versions").write_text("sglang==0.0.1\n")
    with index(wheels) as url, index(local) as local_url:
        values = {"UV_FIND_LINKS": str(local / "sglang")}
        usual = local_url if "INDEX" in variable else str(local / "versions")
        monkeypatch.setenv(variable, values.get(variable, usual))
        assert main(["lock", "sglang==0.13.8", "--index-url", url]) == 0
    text = capfd.readouterr().out
    assert all(digest in text for digest in digests) and other not in text
    assert problem_of(text, UV) == ""
