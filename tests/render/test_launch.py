"""The files of a GPU host, whole, read by systemd, nft and vLLM's own format's parser."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from roles.engine import EngineSettings
from roles.hardware import declared_hardware
from roles.host import HostFile
from roles.launch import LaunchSettings
from roles.launch.render import host_files
from roles.topology import ServiceSettings, plan_host

EXPECTED = Path(__file__).with_name("expected")


def needs(program: str) -> None:
    if shutil.which(program) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing in CI")
        pytest.skip(f"{program} is not installed")


def rendered(device: str = "cuda", **launch) -> dict[str, HostFile]:
    service = ServiceSettings.model_validate(
        {"name": "qwen", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
    )
    plan = plan_host(service, "gpu3", declared_hardware("4x NVIDIA A10G", None))
    files = host_files(
        plan,
        service,
        EngineSettings.model_validate({"device": device}),
        LaunchSettings.model_validate(launch),
        "10.0.0.13",
        ["10.0.0.10"],
        "engine-key-0123456789",
    )
    return {file.path: file for file in files}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/systemd/system/llm-engine@.service",
        "/etc/systemd/system/llm-firewall.service",
        "/etc/llm/firewall.nft",
        "/etc/llm/replicas/qwen-1.env",
        "/etc/llm/replicas/qwen-1.yaml",
        "/etc/llm/secrets/engine.env",
    ],
)
def test_whole_files(path: str):
    assert rendered()[path].content == (EXPECTED / Path(path).name).read_text()


@pytest.mark.parametrize("device", ["cuda", "rocm", "cpu"])
@pytest.mark.parametrize("firewall", [True, False])
def test_systemd_reads_the_units(tmp_path: Path, device: str, firewall: bool):
    needs("systemd-analyze")
    units = []
    for path, file in rendered(device, firewall=firewall).items():
        if path.endswith(".service"):
            # Programs of the hosts are not on this machine; /bin/true stands where they would.
            text = file.content.replace("/opt/llm/engines/current/bin/vllm", "/bin/true")
            text = text.replace("/usr/sbin/nft", "/bin/true")
            unit = tmp_path / Path(path).name.replace("@.", "@qwen-0.")
            unit.write_text(text)
            units.append(str(unit))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True
    )
    ours = [line for line in done.stderr.splitlines() if "llm-" in line]
    assert (done.returncode, ours) == (0, [])


def test_nft_reads_the_rules(tmp_path: Path):
    needs("nft")
    rules = tmp_path / "llm.nft"
    rules.write_text(rendered()["/etc/llm/firewall.nft"].content)
    command = ["nft", "--check", "-f", str(rules)]
    if os.geteuid() != 0:
        pytest.skip("nft checks rules as root only")
    # In a namespace of its own: even a check must not see this machine's rules.
    done = subprocess.run(["unshare", "--net", *command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_configuration_is_yaml_with_known_options():
    options = yaml.safe_load(rendered()["/etc/llm/replicas/qwen-0.yaml"].content)
    table = Path(__file__).with_name("vllm-serve-options.txt").read_text().split()
    assert set(options) - {"model"} <= set(table)
