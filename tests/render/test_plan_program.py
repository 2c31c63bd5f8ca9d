"""`python -m roles.topology fleet`: the plan of an inventory file, or what is wrong with it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def fleet(inventory: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "roles.topology", "fleet", inventory, *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_a_missing_file_is_named():
    done = fleet("inventories/nowhere.py")
    assert done.returncode == 1
    assert "inventories/nowhere.py: there is no such inventory file" in done.stderr


@pytest.mark.parametrize("name", ["prod", "staging", "local", "lab"])
def test_the_examples_are_planned_without_their_secrets(name: str, tmp_path: Path):
    done = fleet(f"inventories/{name}.py", LAB_STATE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Plan for" in done.stdout


def test_a_plan_is_compared_with_the_saved_one(tmp_path: Path):
    text = (ROOT / "inventories/local.py").read_text()
    file = tmp_path / "local.py"
    file.write_text(text)
    assert "saved in" in fleet(str(file), "--save").stdout
    assert fleet(str(file)).stdout.rstrip().endswith("as saved")
    file.write_text(re.sub(r'"max_model_len": \d+', '"max_model_len": 1024', text))
    changed = fleet(str(file))
    assert changed.returncode == 0 and "not the plan saved in" in changed.stdout
    assert re.search("has max_model_len 1024, was max_model_len 8192", changed.stdout)
    (tmp_path / "plans/local.yaml").write_text("nonsense")
    assert fleet(str(file)).returncode == 1
