"""`python -m roles.topology fleet`: the plan of an inventory file, or what is wrong with it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.checks.test_report import violations

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
    words = "max_model_len 8192 → 1024"
    assert re.search(f": {words}, because {words}$", changed.stdout, re.MULTILINE)
    (tmp_path / "plans/local.yaml").write_text("nonsense")
    assert fleet(str(file)).returncode == 1


@pytest.mark.parametrize("broken", ["check(", "1 / 0"])
def test_a_file_that_does_not_run_is_named_with_its_line(tmp_path: Path, broken: str):
    text = (ROOT / "inventories/local.py").read_text()
    file = tmp_path / "local.py"
    file.write_text(text.replace("check(__file__)", broken))
    done = fleet(str(file))
    assert (done.returncode, done.stdout) == (1, "")
    first, last = done.stderr.splitlines()
    number = 1 + text.splitlines().index("check(__file__)")
    assert f"local.py, line {number}: " in first and last.startswith("Nothing was done")


def test_the_plan_for_programs_is_as_described(tmp_path: Path):
    schema = json.loads((ROOT / "docs/fleet.schema.json").read_text())
    file = tmp_path / "prod.py"
    stated = '"concurrency": 8, "max_model_len": '
    file.write_text((ROOT / "inventories/prod.py").read_text().replace('"max_model_len": ', stated))
    new = json.loads(fleet(str(file), "--json").stdout)
    assert violations(new, schema) == []
    assert [service["deployed"] for service in new["services"]] == [True]
    assert (new["saved_plan"], new["plan_differences"]) == (None, None)
    hosts = [host for service in new["services"] for host in service["hosts"]]
    assert any(replica["expected"] for host in hosts for replica in host["replicas"])

    kept = json.loads(fleet(str(file), "--json", "--save").stdout)
    assert kept["plan_differences"] == []
    plan = Path(kept["saved_plan"])
    plan.write_text(plan.read_text().replace("max_model_len: ", "max_model_len: 1"))
    differs = json.loads(fleet(str(file), "--json").stdout)
    assert violations(differs, schema) == []
    assert differs["plan_differences"] and all(
        "max_model_len" in one for one in differs["plan_differences"]
    )
