"""What an inventory may say of SGLang, and what a build needs of a host."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from roles.engine import SglangSettings, deployment, engine_needs
from roles.engine.lock import entries, problem_of
from roles.engine.sglang.deployment import LINK_CUDA
from roles.topology import ServiceSettings

QWEN = "Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"requirement": "vllm==0.33.0"}, "another package than SGLang"),
        ({"requirement": "sglang-kernel==0.4.10"}, "another package than SGLang"),
        ({"requirement": "sglang"}, "should match pattern"),
        ({"requirement": "sglang==0"}, "is no version of a package"),
        ({"requirement": "sglang>=0.5"}, "should match pattern"),
        ({"python": "python3.10"}, "does not run on python3.10"),
        ({"device": "rocm"}, "are for CUDA; name an index_url or a wheelhouse"),
        ({"device": "cpu"}, "or use vllm or llama_cpp there"),
        ({"device": "tpu"}, "'cuda', 'rocm' or 'cpu'"),
        ({"wheelhouse": "http://10.0.0.1/wheels"}, "allow_http_from"),
        ({"environment": {"SGLANG_LOGGING_CONFIG_PATH": "/x"}}, "keeps keys out of the log"),
        ({"environment": {"CUDA_VISIBLE_DEVICES": "0"}}, "follows from the plan"),
        ({"lock": "nowhere.lock"}, "not there"),
    ],
)
def test_a_wrong_build_is_refused(values: dict[str, Any], words: str):
    with pytest.raises(ValidationError) as caught:
        SglangSettings.model_validate(values)
    assert words in str(caught.value)


def test_another_build_of_its_own_is_taken():
    index = {"device": "rocm", "extra_index_urls": ["https://wheels.example/rocm"]}
    assert SglangSettings.model_validate(index | {"allow_unhashed": True}).missing is None
    assert SglangSettings.model_validate(index).missing is not None


@pytest.mark.parametrize(
    ("values", "cuda", "branch", "python"),
    [
        ({}, "13.0", 580, (3, 11)),
        ({"requirement": "sglang==0.5.20"}, "13.0", 580, (3, 11)),
        ({"requirement": "sglang==0.5.19"}, "12.9", 525, (3, 10)),
        ({"device": "cpu", "wheelhouse": "/srv/w"}, None, None, (3, 11)),
    ],
)
def test_what_a_build_needs_of_a_host(
    values: dict[str, Any], cuda: str | None, branch: int | None, python: tuple[int, int]
):
    needs = engine_needs(SglangSettings.model_validate(values))
    assert (needs.cuda, needs.driver_branch, needs.python) == (cuda, branch, python)
    assert needs.compute_capability == (8.0 if cuda else None)
    assert needs.glibc == (2, 34) and needs.name.startswith("sglang 0.5.")


def test_the_usual_requirement_has_a_lock_with_hashes_of_everything():
    usual = SglangSettings()
    locked = entries(usual.lock_text)
    assert problem_of(usual.lock_text, usual.uv) == "" and usual.missing is None
    assert {usual.requirement, usual.uv, "torch==2.14.1", "sglang-kernel==0.4.10"} <= locked.keys()
    # Builds for CPUs have a version of their own, "+cpu", or no libraries of CUDA.
    assert not any("+" in name for name in locked) and "nvidia-cublas" in usual.lock_text
    other = SglangSettings(requirement="sglang==0.5.24")
    assert other.missing is not None and "lock sglang==0.5.24" in other.missing[1]


def test_its_first_start_is_part_of_the_installation():
    build = SglangSettings(allow_unhashed=True)
    found = deployment(build).installation(build)
    assert "sglang==0.5.23" in found.script and "import sglang" in found.script
    assert found.script.splitlines()[-1] == 'touch "$new/.complete"'
    on_cpus = SglangSettings(device="cpu", wheelhouse="/srv/w", allow_unhashed=True)
    assert "nvcc" in found.script and "nvcc" not in deployment(on_cpus).installation(on_cpus).script
    assert found.version_name.startswith("sglang-0.5.23-cuda-")


@pytest.mark.parametrize("has_compiler", [True, False])
def test_the_compiler_of_its_packages_is_found_by_one_name(tmp_path: Path, has_compiler: bool):
    toolkit = tmp_path / "lib/python3.11/site-packages/nvidia/cu13"
    (toolkit / "bin").mkdir(parents=True)
    if has_compiler:
        (toolkit / "bin/nvcc").touch()
    script = f"set -eu\nnew={tmp_path}\n{LINK_CUDA}\n{LINK_CUDA}\n"
    subprocess.run(["sh", "-c", script], check=True)
    assert (tmp_path / "cuda/bin/nvcc").exists() is has_compiler


@pytest.mark.parametrize(
    ("requirement", "refused"), [("sglang==0.5.23", True), ("sglang==0.5.24", False)]
)
def test_an_option_that_this_version_does_not_know_is_refused(requirement: str, refused: bool):
    assert SglangSettings(requirement=requirement).options_are_listed is refused


def test_an_option_of_another_engine_is_unknown():
    (words,) = SglangSettings().unknown_options({"max-model-len": 4})
    assert "max-model-len" in words


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weights": "/srv/models/x.gguf"}, "set engine llama_cpp"),
        ({"arguments": {"tp-size": 2}}, "leave it to the plan"),
        ({"arguments": {"api-key": "sk-1"}}, "balancer.engine_key_file"),
    ],
)
def test_a_service_that_it_cannot_serve_is_refused(values: dict[str, Any], words: str):
    given = {"name": "chat", "model": QWEN, "engine": "sglang", "max_model_len": 4096}
    with pytest.raises(ValidationError) as caught:
        ServiceSettings.model_validate(given | values)
    assert words in str(caught.value)
