"""A lock made from an index, by uv itself: here one of our own, with wheels that bring nothing."""

import hashlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from roles.engine.__main__ import main
from roles.engine.lock import device_problem, entries
from tests.render.test_engine_install import wheel

UV = "uv==0.13.8"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two indexes: one as the public one, whose torch is for CUDA, and one with a torch of its
    own."""
    for name, packages in {
        "public": [("vllm", "0.33.0"), ("uv", "0.13.8"), ("nvidia_cublas", "13.0.1")],
        "rocm": [("vllm", "0.33.0+rocm721"), ("torch", "2.14.0+rocm7.2")],
    }.items():
        for package, version in packages:
            folder = tmp_path / name / package.replace("_", "-")
            folder.mkdir(parents=True)
            wheel(folder, package, version, "true")
            links = (
                f'<a href="{one.name}#sha256={hashlib.sha256(one.read_bytes()).hexdigest()}">'
                f"{one.name}</a>"
                for one in folder.glob("*.whl")
            )
            (folder / "index.html").write_text("".join(links))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield f"{url}/public", f"{url}/rocm"
        server.shutdown()


def test_a_lock_for_another_device_comes_from_its_own_index(
    indexes: tuple[str, str], capfd: pytest.CaptureFixture[str]
):
    public, rocm = indexes
    command = ["lock", "vllm==0.33.0+rocm721", "--device", "rocm", "--index-url", public]
    assert main([*command, "--extra-index-url", rocm]) == 0
    assert set(entries(capfd.readouterr().out)) == {"vllm==0.33.0+rocm721", UV}


def test_a_lock_with_cudas_packages_is_none_for_another_device(
    indexes: tuple[str, str], capfd: pytest.CaptureFixture[str]
):
    public, _ = indexes
    text = "torch==2.14.0 --hash=sha256:{0}\nnvidia-cublas==13.0.1 --hash=sha256:{0}\n"
    assert "nvidia-cublas==13.0.1" in device_problem(text.format("a" * 64), "cpu")
    assert device_problem(text.format("a" * 64), "cuda") == ""
    # The public index has no build for it at all.
    assert main(["lock", "vllm==0.33.0+rocm721", "--index-url", public]) == 1
    assert capfd.readouterr().out == ""
