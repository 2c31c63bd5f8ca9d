"""pyinfra as a program with commands that cannot go well: it says why, and does nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = """
from roles.fleet.inventory import check

gpu_hosts = [("gpu-1", {"ssh_hostname": "192.0.2.11", "llm": {"gpus": "2x NVIDIA L40S"}})]
balancers = [("lb-1", {"ssh_hostname": "192.0.2.10"})]
all = (
    gpu_hosts + balancers,
    {
        "llm": {
            "services": [
                {"name": "q", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
            ],
            "balancer": {"api_key_file": "KEY"},
        }
    },
)
check(__file__)
"""
PLAN = "deploys/plan.py"
CASES = {
    "True as a number": (("4096", "True"), (PLAN,), "services[0].max_model_len: "),
    "a misspelt key beside ours": (('"llm": {\n', '"lllm": {\n'), (PLAN,), "all: unknown key"),
    "no hosts": (("gpu_hosts = ", "gpu_hosts, balancers = [], []\n_no = "), (PLAN,), "hosts: "),
    "no check": (("check(__file__)", ""), (PLAN,), "check(__file__): is not called"),
    "an empty file": ((GOOD, ""), (PLAN,), "check(__file__): is not called"),
    "syntax": (("check(__file__)", "check("), (PLAN,), "site.py, line "),
    "an exception": (("check(__file__)", "1 / 0"), (PLAN,), "site.py, line "),
    "an early end": (("check(__file__)", "raise SystemExit"), (PLAN,), "site.py, line "),
    "an end in all": ((GOOD, "import sys; sys.exit(0)"), (PLAN,), "site.py, line 1: ends the"),
    "an odd host": (("\nbalancers = [", "\nbalancers = [('x', 1), "), (PLAN,), "hosts[x]: "),
    "unknown data": (("", ""), (PLAN, "--data", "acept_plan=true"), "--data acept_plan=true: "),
    "wrong data": (("", ""), (PLAN, "--data", "accept_plan=yes"), "--data accept_plan=yes: "),
    "data without a value": (("", ""), (PLAN, "--data", "verbose"), "--data verbose: "),
    "a limit of nobody": (("", ""), (PLAN, "--limit", "gpu-2"), "--limit gpu-2: "),
    "group data that is not there": (("", ""), (PLAN, "--group-data", "gone"), "--group-data gone"),
    "unknown GPUs": (('"gpus": "2x NVIDIA L40S"', ""), (PLAN,), "hosts[gpu-1].gpus: "),
    "a key that is not there": (
        ('"ssh_hostname"', '"ssh_key": "nowhere.key", "ssh_hostname"'),
        (PLAN,),
        "hosts[gpu-1].ssh_key: nowhere.key is not there",
    ),
    "a key of the command line": (("", ""), (PLAN, "--key", "no.key"), "--data ssh_key: no.key"),
    "a wrong port": (("", ""), (PLAN, "--port", "99999"), "--ssh-port: 99999"),
    "an option below zero": (("", ""), (PLAN, "--parallel", "-1"), "--parallel -1: "),
    "another verb": (("4096", "True"), ("exec", "--", "id"), "services[0].max_model_len: "),
}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("pyinfra")), *arguments, "-y"],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def refused(folder: Path, inventory: Path, *arguments: str) -> str:
    """The first line of ours of a run that is refused, with nothing written and nobody asked."""
    before = sorted(folder.rglob("*"))
    done = run(folder, str(inventory), *arguments)
    printed = done.stdout + done.stderr
    assert done.returncode == 1, printed
    assert (
        "Traceback" not in printed
        and "Connecting" not in printed
        and "pyinfra error" not in printed
    )
    assert "Nothing was done" in printed
    assert sorted(folder.rglob("*")) == before
    return next(line for line in printed.splitlines() if not line.startswith("--> Loading"))


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    key = tmp_path / "api.key"
    key.write_text("k" * 32)
    key.chmod(0o600)
    file = tmp_path / "site.py"
    file.write_text(GOOD.replace("KEY", str(key)))
    return file


@pytest.mark.parametrize(("change", "arguments", "begins"), CASES.values(), ids=CASES)
def test_what_cannot_go_well_is_refused_first(
    tmp_path: Path, inventory: Path, change: tuple[str, str], arguments: tuple, begins: str
):
    old, new = change
    text = inventory.read_text()
    inventory.write_text(new if old == GOOD else text.replace(old, new, 1))
    line = refused(tmp_path, inventory, *arguments)
    assert begins in line and not line.startswith("-->")


def test_group_data_that_is_named_counts(tmp_path: Path, inventory: Path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "gpu_hosts.py").write_text("llm = {'drained': 1}\n")
    line = refused(tmp_path, inventory, PLAN, "--group-data", str(tmp_path / "more"))
    assert "hosts[gpu-1].drained: must be True or False" in line


def test_an_inventory_that_is_not_there_is_an_error(tmp_path: Path):
    assert "there is no such" in refused(tmp_path, tmp_path / "nowhere.py", PLAN)


def test_another_plan_than_the_saved_one_is_said_before_contact(tmp_path: Path, inventory: Path):
    save = (sys.executable, "-m", "roles.topology", "fleet", str(inventory), "--save")
    subprocess.run(save, cwd=ROOT, check=True, capture_output=True)
    inventory.write_text(inventory.read_text().replace("2x NVIDIA L40S", "1x NVIDIA L40S"))
    assert "the plan is not the saved one" in refused(tmp_path, inventory, PLAN)


def test_a_good_command_goes_on_to_the_hosts(tmp_path: Path, inventory: Path):
    nobody = '"ssh_hostname": "127.0.0.1", "ssh_port": 1'
    text = inventory.read_text().replace('"ssh_hostname": "192.0.2.11"', nobody)
    inventory.write_text(text.replace('{"gpus"', '{"address": "192.0.2.11", "gpus"'))
    done = run(tmp_path, str(inventory), PLAN, "--data", "verbose=true", "--limit", "gpu_hosts")
    assert "Connecting to hosts" in done.stdout + done.stderr
