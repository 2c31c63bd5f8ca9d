"""Whether CUDA starts, from what its own library says."""

import subprocess

import pytest

from roles.hardware.cuda import SCRIPT, cuda_fault


def test_a_good_start_is_no_fault():
    assert cuda_fault("cuda 0 8\n", 8) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cuda 802 0", "CUDA finds a system that is not yet initialised (error 802)"),
        ("cuda 804 0", "CUDA finds a driver older than its compatibility library (error 804)"),
        ("cuda 7 0", "CUDA finds error 7 (error 7)"),
        ("cuda 0 7", "CUDA sees 7 GPUs where nvidia-smi shows 8"),
        ("cuda ended 137", "CUDA did not start within 120 s or crashed (cuda ended 137)"),
        ("", "CUDA did not start within 120 s or crashed (silent)"),
        (
            "cuda missing libcuda.so.1: cannot open shared object file",
            "libcuda.so.1 cannot be loaded: libcuda.so.1: cannot open shared object file",
        ),
    ],
)
def test_each_failure_is_named(text: str, problem: str):
    fault = cuda_fault(text, 8)
    assert fault is not None and fault.problem == problem
    assert (fault.kind, fault.severity) == ("cuda-does-not-start", "stop") and fault.remedy


def test_the_script_runs_without_a_driver():
    done = subprocess.run(["sh", "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("cuda ")
