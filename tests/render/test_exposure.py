"""What each engine's unit is exposed to, by `systemd-analyze security`, and that it says why."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from roles.engine import DEPLOYMENTS
from roles.hardware import declared_hardware
from roles.launch.render import shared_unit
from roles.topology import plan_host
from tests.gguf_models import gguf_model
from tests.render.test_launch import needs
from tests.unit.launch.assignments import launch, service

MOST = 2.5
GGUF = {"model": gguf_model("Llama-3.1-8B-Instruct"), "weights": "/srv/m.gguf"}
INDEX = {"extra_index_urls": ["https://wheels.example.com/rocm"]}
ARCHIVE = {"archive": "/srv/a.tgz", "sha256": "a" * 64}
ROCM = {"device": "rocm"}
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("vllm", {}, {}),
    ("vllm", {"device": "rocm"} | INDEX, {}),
    ("vllm", {"device": "cpu"} | INDEX, {}),
    ("sglang", {}, {}),
    ("sglang", {"device": "rocm"} | INDEX, {}),
    ("llama_cpp", ARCHIVE, GGUF),
    ("llama_cpp", ARCHIVE | {"device": "rocm"}, GGUF),
    ("llama_cpp", ARCHIVE | {"device": "cpu"}, GGUF),
    ("ollama", ARCHIVE, GGUF),
]


def test_every_engine_is_among_them():
    assert {kind for kind, _, _ in CASES} == set(DEPLOYMENTS)


@pytest.mark.parametrize(
    ("kind", "settings", "of_service"),
    CASES,
    ids=[f"{kind}-{settings.get('device', 'cuda')}" for kind, settings, _ in CASES],
)
def test_a_unit_is_exposed_to_little_and_says_to_what(
    tmp_path: Path, kind: str, settings: dict[str, Any], of_service: dict[str, Any]
):
    needs("systemd-analyze")
    build = DEPLOYMENTS[kind].build.model_validate(settings)
    own: dict[str, Any] = {**of_service, "engine": kind}
    hardware = declared_hardware("2x NVIDIA L40S", None)
    host_plan = plan_host(service(**own), "gpu3", hardware)
    replica = launch(build, host_plan=host_plan, **own).replicas[0]
    text = f"{shared_unit()}\n{replica.files['unit.conf'].text}"
    # Offline it reads one file alone.
    unit = tmp_path / "llm-engine@qwen-0.service"
    unit.write_text(text)
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd before 250 judges no file")
    (level,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert float(level) <= MOST, done.stdout
    # Each lack is set otherwise, or explained in the unit.
    lacks = re.findall(r"^✗ ([A-Za-z]+)=", done.stdout, re.MULTILINE)
    assert lacks and [name for name in lacks if name not in text] == []
