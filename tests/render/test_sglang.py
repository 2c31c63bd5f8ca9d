"""The files of a replica of SGLang, read by systemd, a shell and SGLang's own table of options."""

import subprocess
from pathlib import Path

import pytest
import yaml

from roles.engine import Served, SglangSettings, deployment
from roles.engine.arguments import option_names
from roles.engine.sglang.arguments import OPTIONS
from roles.hardware import declared_hardware
from roles.host.paths import UNIT_TEMPLATE
from roles.launch import Assignment, HostLaunch, LaunchSettings
from roles.launch.render import shared_unit
from roles.topology import ServiceSettings, plan_host
from tests.render.test_launch import needs

KEY = "engine-key-0123456789"


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """The shared unit, and each file of the first replica on a host."""
    service = ServiceSettings.model_validate(
        {
            "name": "chat",
            "model": "Qwen/Qwen2.5-14B-Instruct",
            "engine": "sglang",
            "max_model_len": 4096,
            "arguments": {"tool-call-parser": "qwen25"},
        }
    )
    build = SglangSettings()
    plan = plan_host(service, "gpu1", declared_hardware("4x NVIDIA A10G", None))
    served = Served("acme/chat", "/srv/chat", arguments=service.arguments)
    wanted = HostLaunch(
        tuple(
            Assignment(one, build.kind, deployment(build), build, served, KEY)
            for one in plan.replicas
        ),
        LaunchSettings(),
        "10.0.0.13",
        ("10.0.0.9",),
    )
    texts = {name: file.text for name, file in wanted.replicas[0].files.items()}
    modes = {name: file.mode for name, file in wanted.replicas[0].files.items()}
    assert modes["options.yaml"] == "600" and modes["logging.json"] == "644"
    return {UNIT_TEMPLATE: shared_unit(), **texts}


@pytest.fixture
def unit(tmp_path: Path, files: dict[str, str]) -> Path:
    """The unit with its drop-in, as systemd's tools take it."""
    unit = tmp_path / "llm-engine@chat-0.service"
    unit.write_text(files[UNIT_TEMPLATE])
    drop_in = tmp_path / f"{unit.name}.d" / "replica.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(files["unit.conf"])
    return unit


def test_systemd_reads_the_unit(unit: Path):
    needs("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    ours = [line for line in done.stderr.splitlines() if "llm-" in line]
    assert (done.returncode, ours) == (0, [])


def test_its_schedulers_are_not_stopped_beside_it(files: dict[str, str]):
    lines = files["unit.conf"].splitlines()
    assert {
        "KillMode=mixed",
        f"TimeoutStopSec={LaunchSettings().drain_timeout_s + 30}",
        "RestartPreventExitStatus=2",
    } <= set(lines)
    assert "LoadCredential=options.yaml:/etc/llm/replicas/%i/current/options.yaml" in lines


def test_a_shell_reads_how_it_starts(files: dict[str, str]):
    assert subprocess.run(["sh", "-n"], input=files["start"], text=True).returncode == 0
    last = files["start"].splitlines()[-1]
    assert last.startswith("exec /opt/llm/engines/sglang-0.5.23-cuda-")
    assert last.endswith('--config "$CREDENTIALS_DIRECTORY/options.yaml" --tool-call-parser qwen25')


def test_its_configuration_is_yaml_with_options_that_it_knows(files: dict[str, str]):
    assert yaml.safe_load(files["options.yaml"]).keys() <= option_names(OPTIONS)


def test_its_key_is_in_no_file_before_the_host_writes_it(files: dict[str, str]):
    assert not any(KEY in text for text in files.values())
