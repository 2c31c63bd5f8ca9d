"""A real llama-server, started by the options of a planned replica of the lab's tiny model."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from roles.engine.llama_cpp.options import options_of
from roles.fleet import served
from roles.hardware import declared_hardware
from roles.models import Model
from roles.models.folder import recorded_gguf
from roles.models.gguf import read_header
from roles.topology import ServiceSettings, plan_host
from tests.lab import gguf
from tests.lab.paths import STATE

NAME = "lab/tiny"


def llama_server() -> Path:
    """The lab's llama-server; skips where the lab was never built."""
    found = sorted(STATE.glob("llama-*/llama-server"))
    if not found:
        pytest.skip("the lab's llama-server is not built here")
    return found[-1]


def tiny_model(layers: int = 2) -> Model:
    """The lab's tiny model, as it is recorded."""
    content = gguf.content(layers)
    return recorded_gguf(read_header(BytesIO(content), NAME, len(content)), NAME, NAME).model()


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[str]:
    """The URL of a replica of a service with these settings, once it answers."""
    file = folder / "tiny.gguf"
    file.write_bytes(gguf.content(2))
    own = {"name": "tiny", "model": tiny_model(), "weights": str(file), "min_concurrency": 2}
    service = ServiceSettings.model_validate(own | {"max_model_len": 500} | settings)
    hardware = declared_hardware("1x NVIDIA L40S", None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    replica = replace(plan_host(service, "gpu1", hardware).replicas[0], port=port)
    options = options_of(replica, served(service), "127.0.0.1")
    if service.adapters:
        (options["--lora"],) = map(str, service.adapters.values())
    words = [word for pair in options.items() for word in pair if word is not None]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [llama_server(), *words], stdout=output, stderr=output, env=os.environ
        )
    try:
        end = time.monotonic() + 60
        while "listening on" not in log.read_text() and time.monotonic() < end:
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(20)
