"""The benchmarks are run by hand: what they need is looked at here."""

import subprocess
import sys

from tests.lab.conftest import ROOT


def test_each_benchmark_finds_what_it_sets_up():
    pytest = [sys.executable, "-m", "pytest", "-q", "--setup-plan", "tests/benchmarks"]
    done = subprocess.run(pytest, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
