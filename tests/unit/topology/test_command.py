"""`python -m roles.topology fleet`: the plan of an inventory file, or what is wrong with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def fleet(inventory: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "roles.topology", "fleet", inventory],
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
