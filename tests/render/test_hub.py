"""The hub's files over HTTP, from a server on loopback."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from roles.models import read_adapter
from roles.models.__main__ import main
from roles.models.hub import HubError, read_hub
from roles.topology import ServiceSettings
from tests.adapters import peft
from tests.unit.models.published import read
from tests.unit.validation.certificate import self_signed

ROOT = Path(__file__).parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = json.dumps(read("Llama-3.1-8B-Instruct")).encode()
INDEX = json.dumps({"metadata": {"total_size": 16_060_522_496}, "weight_map": {}}).encode()
# One tensor of 4 numbers and one of 2, in two bytes each, behind a header of over a MiB.
HEADER = json.dumps(
    {
        "__metadata__": {"filler": "x" * 2**20},
        "a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
        "b": {"dtype": "BF16", "shape": [2], "data_offsets": [8, 12]},
    }
).encode()
SINGLE = struct.pack("<Q", len(HEADER)) + HEADER + bytes(12)
AT = f"resolve/{COMMIT}"
FILES = {
    "/api/models/org/indexed/revision/main": json.dumps({"sha": COMMIT}).encode(),
    f"/org/indexed/{AT}/config.json": CONFIG,
    f"/org/indexed/{AT}/model.safetensors.index.json": INDEX,
    "/api/models/org/single/revision/v1": json.dumps({"sha": COMMIT}).encode(),
    f"/org/single/{AT}/config.json": CONFIG,
    f"/org/single/{AT}/model.safetensors": SINGLE,
    f"/org/bare/{AT}/config.json": CONFIG,
    f"/org/broken/{AT}/config.json": b"{not json",
    "/api/models/org/odd/revision/main": b"[]",
    f"/org/sharded/{AT}/config.json": CONFIG,
    f"/org/sharded/{AT}/model.safetensors.index.json": json.dumps(
        {"metadata": {}, "weight_map": {"a": "1.safetensors", "b": "1.safetensors", "c": "2.st"}}
    ).encode(),
    f"/org/sharded/{AT}/1.safetensors": SINGLE,
    f"/org/sharded/{AT}/2.st": SINGLE,
    f"/org/nvidia/{AT}/config.json": CONFIG,
    f"/org/nvidia/{AT}/hf_quant_config.json": (
        b'{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}'
    ),
    "/api/models/org/pull/revision/refs%2Fpr%2F1": json.dumps({"sha": COMMIT}).encode(),
    f"/org/pull/{AT}/config.json": CONFIG,
    f"/org/novel/{AT}/config.json": json.dumps(
        json.loads(CONFIG) | {"model_type": "novel"}
    ).encode(),
    f"/org/shapeless/{AT}/config.json": b'{"model_type": "novel"}',
}


MOVED: dict[str, str] = {}
"""Where the hub sends who asks for a path."""


class Hub(BaseHTTPRequestHandler):
    seen: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        Hub.seen.append((self.path, self.headers.get("Authorization")))
        if self.path in MOVED:
            return self._answer(302, b"", MOVED[self.path])
        if "/gated" in self.path and self.headers.get("Authorization") != "Bearer good":
            return self._answer(401 if not self.headers.get("Authorization") else 403, b"")
        if "/busy" in self.path:
            return self._answer(503, b"")
        content = FILES.get(self.path.replace("/gated", "/indexed"))
        if content is None:
            return self._answer(404, b"")
        if asked := self.headers.get("Range"):
            begin, end = asked.removeprefix("bytes=").split("-")
            return self._answer(206, content[int(begin) : int(end) + 1])
        return self._answer(200, content)

    def _answer(self, status: int, content: bytes, location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The same over TLS, at two hosts that this process trusts."""
    folder = tmp_path_factory.mktemp("tls")
    servers, urls, bundle = [], [], ""
    for address in ("127.0.0.1", "127.0.0.2"):
        pem, context = self_signed(folder, address)
        server = ThreadingHTTPServer((address, 0), Hub)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        urls.append(f"https://{address}:{server.server_port}")
        bundle += pem
    (folder / "bundle.pem").write_text(bundle)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("REQUESTS_CA_BUNDLE", str(folder / "bundle.pem"))
        yield urls[0], urls[1]
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_branch_is_pinned_and_the_index_gives_the_bytes(endpoint: str):
    found = read_hub("org/indexed", endpoint=endpoint)
    assert (found.id, found.revision) == ("org/indexed", COMMIT)
    assert found.weights_bytes == 16_060_522_496
    assert found.config == json.loads(CONFIG)
    assert len(found.model().layers) == 32


def test_the_header_of_a_single_file_gives_the_bytes(endpoint: str):
    assert read_hub("org/single@v1", endpoint=endpoint).weights_bytes == 12


def test_a_commit_needs_no_question_and_weights_need_not_be_there(endpoint: str):
    Hub.seen.clear()
    assert read_hub(f"org/bare@{COMMIT}", endpoint=endpoint).weights_bytes is None
    assert not any(path.startswith("/api") for path, _ in Hub.seen)


def test_an_index_without_a_total_is_added_up_by_its_files(endpoint: str):
    assert read_hub(f"org/sharded@{COMMIT}", endpoint=endpoint).weights_bytes == 24


def test_nvidias_quantisation_is_kept(endpoint: str):
    found = read_hub(f"org/nvidia@{COMMIT}", endpoint=endpoint)
    assert found.quantization == {"quant_algo": "FP8"}
    quantization = found.model().quantization
    assert quantization is not None and quantization.linear.bits == 8


def test_a_revision_may_have_slashes(endpoint: str):
    assert read_hub("org/pull@refs/pr/1", endpoint=endpoint).revision == COMMIT


@pytest.mark.parametrize("wrong", ["hub.example", "ftp://hub", "https://me:secret@hub", ""])
def test_an_endpoint_is_a_url_without_credentials(wrong: str):
    with pytest.raises(HubError, match="must be a URL without credentials") as error:
        read_hub("org/any", endpoint=wrong)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("wrong", ["https://[::1", "https://a:99999", "https://..", "https://a:b"])
def test_an_endpoint_has_a_host_and_a_port(wrong: str):
    with pytest.raises(HubError, match=r"the hub's endpoint .* is no URL: .*; write https://HOST"):
        read_hub("org/any", endpoint=wrong)


def test_the_token_goes_with_every_request(secure: tuple[str, str]):
    Hub.seen.clear()
    assert read_hub("org/gated", token="good", endpoint=secure[0]).revision == COMMIT
    assert {token for _, token in Hub.seen} == {"Bearer good"}


def test_the_token_never_goes_over_plain_http(endpoint: str, command: Command):
    Hub.seen.clear()
    done = command("org/gated", "--endpoint", endpoint, token="good")
    assert (done.returncode, Hub.seen) == (1, [])
    assert "the token goes over TLS alone" in done.stderr and "HF_TOKEN" in done.stderr
    assert "good" not in done.stderr


def test_the_token_does_not_go_to_where_the_hub_leads(
    secure: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    path = f"/org/indexed/{AT}/config.json"
    monkeypatch.setitem(MOVED, path, f"{secure[1]}/elsewhere")
    monkeypatch.setitem(FILES, "/elsewhere", CONFIG)
    Hub.seen.clear()
    assert read_hub("org/indexed", token="good", endpoint=secure[0]).revision == COMMIT
    sent = dict(Hub.seen)
    assert (sent[path], sent["/elsewhere"]) == ("Bearer good", None)


def test_a_hub_that_leads_to_plain_http_is_left(
    secure: tuple[str, str], endpoint: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(MOVED, f"/org/indexed/{AT}/config.json", f"{endpoint}/elsewhere")
    monkeypatch.setitem(FILES, "/elsewhere", CONFIG)
    Hub.seen.clear()
    with pytest.raises(HubError, match="leads to plain http"):
        read_hub("org/indexed", token="good", endpoint=secure[0])
    assert dict(Hub.seen).get("/elsewhere") is None


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [
        ("org/gated", None, "give a token"),
        ("org/gated", "bad-secret", "accept the model's terms"),
        ("org/missing", None, "is not on"),
        ("org/indexed@nowhere", None, "check the name and revision"),
        (f"org/missing@{COMMIT}", None, "has no config.json"),
        (f"org/broken@{COMMIT}", None, "is no JSON"),
        ("org/busy", None, "answered 503"),
        ("org/odd", None, "something else than JSON"),
        ("../etc/passwd", None, "is no name on the hub"),
        ("org/name/more", None, "is no name on the hub"),
    ],
)
def test_what_goes_wrong_is_said_without_the_token(
    secure: tuple[str, str], name: str, token: str | None, message: str
):
    with pytest.raises(HubError, match=message) as error:
        read_hub(name, token=token, endpoint=secure[0])
    assert "bad-secret" not in str(error.value)


def test_no_network_is_told_with_a_way_out():
    with pytest.raises(HubError, match=r"cannot be reached .*catalog or a local folder"):
        read_hub("org/any", endpoint="http://127.0.0.1:9", timeout_s=2)


def program(*arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """The command as a program of its own."""
    return subprocess.run(
        [sys.executable, "-m", "roles.models", "read", *arguments],
        cwd=ROOT,
        env={**os.environ, "HF_TOKEN": token},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The same in this process, which starts no Python: an exception ends the test."""

    def run(*arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("HF_TOKEN", token)
        status = main(["read", *arguments])
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, printed.out, printed.err)

    return run


def test_the_command_prints_what_an_inventory_takes(secure: tuple[str, str], tmp_path: Path):
    done = program("org/gated", "--endpoint", secure[0], token="good")
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert printed == {
        "id": "org/gated",
        "revision": COMMIT,
        "config": json.loads(CONFIG),
        "weights_bytes": 16_060_522_496,
    }
    file = tmp_path / "gated.json"
    file.write_text(done.stdout)
    message = {"name": "s", "model": str(file), "max_model_len": 4096}
    model = ServiceSettings.model_validate(message).model
    assert (model.id, model.weights_bytes) == ("org/gated", 16_060_522_496)


def test_what_is_wrong_ends_the_program(endpoint: str):
    done = program("/nowhere/model", "--endpoint", endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("/nowhere/model: ") and "Traceback" not in done.stderr


def test_a_token_file_goes_before_the_environment(
    secure: tuple[str, str], tmp_path: Path, command: Command
):
    (tmp_path / "token").write_text("good\n")
    more = ("--token-file", str(tmp_path / "token"), "--endpoint", secure[0])
    assert command("org/gated", *more, token="bad-secret").returncode == 0


@pytest.mark.parametrize(
    ("source", "token", "message"),
    [
        ("org/gated", "", "give a token of an account that may read it (HF_TOKEN or --token-file)"),
        ("org/gated", "bad-secret", "accept the model's terms"),
        ("org/gated", "bad-secret\nhf_2", "HF_TOKEN does not hold a token"),
        ("org/missing", "", "is not on https://127.0.0.1"),
        ("/nowhere/model", "", "/nowhere/model/config.json is not there"),
        (f"org/shapeless@{COMMIT}", "", "config: hidden_size is missing; take"),
    ],
)
def test_the_command_says_what_is_wrong(
    secure: tuple[str, str], source: str, token: str, message: str, command: Command
):
    done = command(source, "--endpoint", secure[0], token=token)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{source}: ") and message in done.stderr
    assert "bad-secret" not in done.stderr


def test_what_the_plan_will_not_be_sure_of_is_said(endpoint: str, command: Command):
    done = command(f"org/novel@{COMMIT}", "--endpoint", endpoint)
    assert done.returncode == 0 and "weights_bytes" not in json.loads(done.stdout)
    assert "warning: org/novel is of an unknown kind (novel)" in done.stderr
    assert "warning: no safetensors files" in done.stderr


def test_a_folder_is_named_by_its_id(tmp_path: Path, command: Command):
    (tmp_path / "config.json").write_bytes(CONFIG)
    (tmp_path / "model.safetensors.index.json").write_bytes(INDEX)
    done = command(str(tmp_path), "--id", "acme/mine")
    assert json.loads(done.stdout) == {
        "id": "acme/mine",
        "config": json.loads(CONFIG),
        "weights_bytes": 16_060_522_496,
    }
    assert "id: a model's name has no empty part" in command(str(tmp_path), "--id", "a/..").stderr
    assert "--id is for a folder alone" in command("org/single", "--id", "a/b").stderr


def test_an_adapter_is_copied_at_its_commit(
    endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = peft(tmp_path / "source", rank=4)
    where = f"/org/style/{AT}"
    FILES["/api/models/org/style/revision/v2"] = json.dumps({"sha": COMMIT}).encode()
    for file in source.iterdir():
        FILES[f"{where}/{file.name}"] = file.read_bytes()
    folder = tmp_path / "adapters" / "style"
    command = ["adapter", "org/style@v2", str(folder), "--endpoint", endpoint]
    assert main(command) == 0
    assert f"rank 4, for Qwen/Qwen2.5-14B-Instruct, commit {COMMIT}" in capsys.readouterr().out
    assert read_adapter(folder).digest == read_adapter(source).digest

    # What is not there, or is no adapter, leaves nothing in its place.
    other = tmp_path / "other"
    assert main(["adapter", f"org/single@{COMMIT}", str(other), "--endpoint", endpoint]) == 1
    assert "has no adapter_config.json" in capsys.readouterr().err
    assert list(other.iterdir()) == []
