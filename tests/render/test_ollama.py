"""The program that starts Ollama, over a stand-in of Ollama that starts a real llama-server."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from roles.engine import OllamaSettings, Placement, Served, Start, deployment
from roles.engine.ollama.deployment import PROGRAM, TASK
from roles.engine.ollama.serve import ServeError, busy, checked, children
from roles.hardware import declared_hardware
from roles.host import probe
from roles.host.paths import CACHE, ENGINES
from roles.host.serving import last_phase
from roles.plan import Task
from roles.topology import ServiceSettings, plan_host
from tests.gguf_models import gguf_model
from tests.lab import gguf, model, ollama
from tests.render.llama_servers import llama_server

CONTEXT, SLOTS = 512, 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine:
    """A machine's folders, with Ollama installed there by its own script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ollama.pack(folder, llama_server())
        self.archive = folder / ollama.ARCHIVE
        digest = subprocess.run(
            ["sha256sum", self.archive], capture_output=True, text=True, check=True
        ).stdout.split()[0]
        self.build = OllamaSettings.model_validate(
            {"archive": str(self.archive), "sha256": digest, "device": "cpu"}
        )
        self.tiny = folder / gguf.TINY
        self.tiny.write_bytes(gguf.content(2))
        self.port = free_port()
        installed = subprocess.run(
            ["sh", "-c", self.moved(deployment(self.build).installation(self.build).script)],
            capture_output=True,
            text=True,
        )
        assert installed.returncode == 0, installed.stderr

    def moved(self, text: str) -> str:
        return text.replace(ENGINES, f"{self.folder}/engines").replace(
            CACHE, f"{self.folder}/cache"
        )

    def start_of(self, weights: str, task: Task = "generate", **build: Any) -> Start:
        service = ServiceSettings.model_validate(
            {
                "name": "chat",
                "engine": "ollama",
                "model": gguf_model("Llama-3.1-8B-Instruct"),
                "weights": "/srv/m.gguf",
                "max_model_len": CONTEXT,
                "min_concurrency": SLOTS,
            }
        )
        hardware = declared_hardware("1x NVIDIA L40S", None)
        replica = replace(plan_host(service, "gpu1", hardware).replicas[0], port=self.port)
        own = OllamaSettings.model_validate(self.build.model_dump() | build)
        served = Served("lab/mine", weights, SLOTS, task=task)
        return deployment(own).start(replica, served, own, Placement("0.0.0.0", free_port(), 60))

    def write(self, start: Start, name: str = "1") -> tuple[Path, dict[str, str]]:
        """The replica's folder, and its environment."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for file, text in start.files.items():
            (folder / file).write_text(self.moved(text))
        own = {key: self.moved(value) for key, value in start.environment.items()}
        return folder, {**own, "HOME": str(self.folder), "no_proxy": "127.0.0.1"}

    @contextmanager
    def running(self, weights: str, task: Task = "generate", **build: Any) -> Iterator["Running"]:
        folder, environment = self.write(self.start_of(weights, task, **build))
        log = self.folder / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, PROGRAM], cwd=folder, env=environment, stdout=file, stderr=file
            )
        try:
            yield Running(self, process, log, folder, environment)
        finally:
            process.terminate()
            process.wait(20)


class Running:
    """A replica that was started."""

    def __init__(
        self,
        machine: Machine,
        process: subprocess.Popen[bytes],
        log: Path,
        folder: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.machine, self.process, self.log = machine, process, log
        self.folder, self.environment = folder, environment
        self.url = f"http://127.0.0.1:{machine.port}"

    def wait_for(self, words: str) -> str:
        return wait_until(lambda: words in self.log.read_text() and self.log.read_text(), words)

    def ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url + path, data, 30) as answer:
            return json.load(answer)


def wait_until(true: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 60
    while not (found := true()):
        assert time.monotonic() < end, f"{what} did not come in time"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("ollama"))


@pytest.fixture
def registry(machine: Machine) -> Iterator[str]:
    """HOST:PORT of a registry with the tiny model."""
    ollama.publish(machine.folder / "www", machine.tiny)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = partial(Quiet, directory=str(machine.folder / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_is_made_a_model_loaded_and_served(machine: Machine):
    with machine.running(str(machine.tiny)) as one:
        log = one.wait_for("the model is loaded")
        (loaded,) = one.ask("/api/ps")["models"]
        assert (loaded["name"], loaded["context_length"]) == ("lab/mine:latest", CONTEXT)
        answer = probe.chat(one.url, "any key", "lab/mine")
        assert (answer["ok"], answer["model"]) == (True, "lab/mine")
        assert probe.chat_stream(one.url, "", "lab/mine")["ok"]
        # It has the name that clients ask for, and refuses others.
        assert probe.chat(one.url, "", "lab/other")["status"] == 404
        # The server is the unit's main process, and its engine has what is planned.
        assert Path(f"/proc/{one.process.pid}/cmdline").read_bytes().split(b"\0")[2] == b"serve"
        (words,) = [line for line in log.splitlines() if "starting llama-server" in line]
        assert f"-c {CONTEXT * SLOTS} -np {SLOTS}" in words and "-ngl 0" in words
        assert "--cache-type-k f16" in words and "-b 512 -ub 512" in words
        phases = [[phase.pattern, phase.words] for phase in machine.start_of("/m.gguf").phases]
        assert last_phase(log.partition("copy the file")[0], phases) == (
            "read the model's file 100%"
        )
        assert last_phase(log, phases) == "first token"

    # What is there is not made again, also where its server was killed.
    with machine.running(str(machine.tiny)) as one:
        log = one.wait_for("the model is loaded")
        assert "read the file" not in log and log.count("Listening on") == 1

    # A model is made anew of a file that the server has: it takes it as it is.
    os.utime(machine.tiny)
    with machine.running(str(machine.tiny)) as one:
        log = one.wait_for("the model is loaded")
        assert "read the file 100%" in log and "copy the file" not in log


def test_an_embedding_model_is_loaded_by_a_text(machine: Machine):
    with machine.running(str(machine.tiny), "embed") as one:
        log = one.wait_for("the model is loaded")
        assert "/api/embed" in log and "/api/generate" not in log
        answer = probe.embed(one.url, "", "lab/mine")
        assert (answer["ok"], answer["length"]) == (True, model.HIDDEN)


def test_a_model_of_a_registry_is_fetched_once(machine: Machine, registry: str):
    weights = f"{registry}/library/tiny:latest"
    with machine.running(weights, allow_http_from=[registry]) as one:
        assert "pulling manifest" in one.wait_for("the model is loaded")
        assert probe.chat(one.url, "", "lab/mine")["ok"]
        # Its own name would be loaded with another context.
        assert [each["name"] for each in one.ask("/api/tags")["models"]] == ["lab/mine:latest"]
    with machine.running(weights, allow_http_from=[registry]) as one:
        assert "pulling" not in one.wait_for("the model is loaded")


def test_services_share_large_files_and_nothing_else(machine: Machine, registry: str):
    with machine.running(str(machine.tiny)) as one:
        one.wait_for("the model is loaded")
    with machine.running(f"{registry}/library/tiny", allow_http_from=[registry]) as one:
        one.wait_for("the model is loaded")
    models = machine.folder / "cache/ollama"
    size = machine.tiny.stat().st_size
    assert [file.stat().st_size for file in (models / "blobs").iterdir()].count(size) == 1
    assert len([path for path in models.iterdir() if (path / "manifests").is_dir()]) >= 2
    # By its source a preflight counts what is kept of a model, and nothing else.
    for source in (str(machine.tiny), f"{registry}/library/tiny"):
        kept = Path(machine.moved(machine.build.hub_folder(source))) / "blobs"
        sizes = [file.stat().st_size for file in kept.iterdir()]
        assert sizes.count(size) == 1 and sum(sizes) < 1.1 * size


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("{folder}/bad.gguf", "ServeError: /api/create: supplied file was not in GGUF format"),
        ("{folder}/gone.gguf", "No such file"),
        ("{registry}/library/gone:latest", "ServeError: /api/pull: pull model manifest"),
    ],
)
def test_what_cannot_be_made_ends_the_start(
    machine: Machine, registry: str, weights: str, said: str
):
    (machine.folder / "bad.gguf").write_text("no GGUF")
    source = weights.format(folder=machine.folder, registry=registry)
    with machine.running(source, allow_http_from=[registry]) as one:
        assert one.process.wait(30) == 1
        assert said in one.log.read_text()


def test_a_load_that_fails_ends_the_server(machine: Machine):
    """A file that the engine does not load: the unit fails, and its log says why."""
    (machine.folder / "cut.gguf").write_bytes(gguf.content(2)[:-100_000])
    with machine.running(f"{machine.folder}/cut.gguf") as one:
        one.process.wait(30)
        assert "ServeError: POST /api/generate: HTTP 500" in one.log.read_text()
        assert "model is corrupted or incomplete" in one.log.read_text()


def test_a_request_is_waited_for_before_the_end(machine: Machine):
    slow = machine.folder / gguf.SLOW
    slow.write_bytes(gguf.content(gguf.LAYERS[gguf.SLOW]))
    with machine.running(str(slow)) as one:
        one.wait_for("the model is loaded")
        assert [type(port) for port in children(one.process.pid)] == [int]
        assert not busy(one.process.pid)
        answers: list[dict[str, Any]] = []
        asked = Thread(
            target=lambda: answers.append(
                probe.chat(one.url, "", "lab/mine", 60, 12, "Tell me all about it.")
            )
        )
        asked.start()
        wait_until(lambda: busy(one.process.pid), "a running request")
        drained = subprocess.run(
            [sys.executable, PROGRAM, "drain"],
            cwd=one.folder,
            env={**one.environment, "MAINPID": str(one.process.pid)},
        )
        asked.join(30)
        assert drained.returncode == 0
        assert [answer["ok"] for answer in answers] == [True]


PLANNED = {"on_gpus": True, "parameters": {"num_ctx": 4096}}
LOADED = {"size": 8 * 2**30, "size_vram": 8 * 2**30, "context_length": 4096}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "0 models are loaded"),
        ([LOADED, LOADED], "2 models are loaded"),
        ([LOADED | {"size_vram": 6 * 2**30}], "only 6.0 of 8.0 GiB are on its GPUs"),
        ([LOADED | {"context_length": 2048}], "a context of 2048 tokens, planned are 4096"),
    ],
)
def test_what_is_loaded_must_be_what_is_planned(found: list[dict[str, int]], said: str):
    assert checked([LOADED], PLANNED) == "8.0 GiB, 8.0 of them on GPUs, context 4096"
    with pytest.raises(ServeError, match=said):
        checked(found, PLANNED)


def test_a_host_without_gpus_holds_it_in_its_memory():
    assert checked([LOADED | {"size_vram": 0}], PLANNED | {"on_gpus": False})


def test_the_program_is_whole_and_its_task_is_readable(machine: Machine):
    start = machine.start_of("/srv/m.gguf")
    assert set(start.files) == {PROGRAM, TASK} and start.command == f"python3 {PROGRAM}"
    compile(start.files[PROGRAM], PROGRAM, "exec")
    assert os.path.isabs(json.loads(start.files[TASK])["program"])
