"""The files of a GPU host, whole, read by systemd, nft and vLLM's own format's parser."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from roles.engine import OllamaSettings, VllmSettings
from roles.hardware import declared_hardware
from roles.host.paths import UNIT_TEMPLATE
from roles.launch import HostLaunch, LaunchSettings
from roles.launch.render import shared_unit
from roles.topology import plan_host
from tests.gguf_models import gguf_model
from tests.unit.launch.assignments import launch, service

EXPECTED = Path(__file__).with_name("expected")


def needs(program: str) -> None:
    if shutil.which(program) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing in CI")
        pytest.skip(f"{program} is not installed")


def rendered(device: str = "cuda", **settings) -> dict[str, str]:
    """Every text of a host's two replicas, by its path; keys are the host's to fill in."""
    wanted = launch(
        VllmSettings.model_validate({"device": device}),
        settings=LaunchSettings.model_validate(settings),
        address="10.0.0.13",
    )
    texts = {UNIT_TEMPLATE: shared_unit(), **wanted.firewall()}
    for replica in wanted.replicas:
        for name, file in replica.files.items():
            texts[f"/etc/llm/replicas/{replica.name}/1/{name}"] = file.text
    return texts


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (UNIT_TEMPLATE, "llm-engine@.service"),
        ("/etc/systemd/system/llm-firewall.service", "llm-firewall.service"),
        ("/etc/llm/firewall.nft", "firewall.nft"),
        ("/etc/llm/replicas/qwen-1/1/start", "qwen-1.start"),
        ("/etc/llm/replicas/qwen-1/1/environment", "qwen-1.environment"),
        ("/etc/llm/replicas/qwen-1/1/unit.conf", "qwen-1.unit.conf"),
        ("/etc/llm/replicas/qwen-1/1/options.yaml", "qwen-1.options.yaml"),
    ],
)
def test_whole_files(path: str, expected: str):
    assert rendered()[path] == (EXPECTED / expected).read_text()


def test_a_shell_finds_what_it_asks_of_a_replica():
    # By lines with one blank before the key, as a host may have no program that reads JSON.
    text = rendered()["/etc/llm/replicas/qwen-1/1/replica.json"]
    about = json.loads(text)
    for key in ("digest", "port", "engine"):
        (line,) = [line for line in text.splitlines() if line.startswith(f' "{key}": ')]
        assert line.strip(" ,") == f'"{key}": {json.dumps(about[key])}'
    assert (about["port"], about["gpus"], about["shape"]) == (8002, [2, 3], "TP2")


@pytest.mark.parametrize("device", ["cuda", "rocm", "cpu"])
@pytest.mark.parametrize("firewall", [True, False])
def test_systemd_reads_the_units(tmp_path: Path, device: str, firewall: bool):
    needs("systemd-analyze")
    texts = rendered(device, firewall=firewall)
    unit = tmp_path / "llm-engine@qwen-0.service"
    # Programs of the hosts are not on this machine; /bin/true stands where they would.
    unit.write_text(texts[UNIT_TEMPLATE])
    drop_in = tmp_path / f"{unit.name}.d" / "replica.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(texts["/etc/llm/replicas/qwen-0/1/unit.conf"])
    units = [str(unit)]
    if firewall:
        rules = tmp_path / "llm-firewall.service"
        text = texts["/etc/systemd/system/llm-firewall.service"]
        rules.write_text(text.replace("/usr/sbin/nft", "/bin/true"))
        units.append(str(rules))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True
    )
    ours = [line for line in done.stderr.splitlines() if "llm-" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("path", ["qwen-0/1/start", "qwen-1/1/start"])
def test_a_shell_reads_how_a_replica_starts(path: str):
    text = rendered()[f"/etc/llm/replicas/{path}"]
    assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0


def test_nft_reads_the_rules(tmp_path: Path):
    needs("nft")
    rules = tmp_path / "llm.nft"
    rules.write_text(rendered()["/etc/llm/firewall.nft"])
    command = ["nft", "--check", "-f", str(rules)]
    if os.geteuid() != 0:
        pytest.skip("nft checks rules as root only")
    # In a namespace of its own: even a check must not see this machine's rules.
    done = subprocess.run(["unshare", "--net", *command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_configuration_is_yaml_with_known_options():
    options = yaml.safe_load(rendered()["/etc/llm/replicas/qwen-0/1/options.yaml"])
    table = Path(__file__).with_name("vllm-serve-options.txt").read_text().split()
    assert set(options) - {"model"} <= set(table)


def ollama_launch() -> HostLaunch:
    """What a host runs of a service on Ollama."""
    given = {"model": gguf_model("Llama-3.1-8B-Instruct"), "weights": "/srv/m.gguf"}
    host_plan = plan_host(
        service(engine="ollama", **given), "gpu3", declared_hardware("2x NVIDIA A10G", None)
    )
    build = OllamaSettings.model_validate({"archive": "/srv/ollama.tgz", "sha256": "a" * 64})
    return launch(build, host_plan=host_plan, engine="ollama", **given)


def test_systemd_reads_a_unit_that_waits_before_it_stops(tmp_path: Path):
    needs("systemd-analyze")
    replica = ollama_launch().replicas[0]
    unit = tmp_path / f"llm-engine@{replica.name}.service"
    unit.write_text(shared_unit())
    drop_in = tmp_path / f"{unit.name}.d" / "replica.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(replica.files["unit.conf"].text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    ours = [line for line in done.stderr.splitlines() if "llm-" in line]
    assert (done.returncode, ours) == (0, [])
    assert "ExecStop=/usr/bin/python3 serve.py drain\n" in drop_in.read_text()
