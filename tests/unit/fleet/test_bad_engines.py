"""What an engine cannot serve is refused when the inventory loads, before a host is contacted."""

from pathlib import Path
from typing import Any

import pytest

from tests.adapters import peft
from tests.gguf_models import gguf_model
from tests.unit.fleet.test_fleet import declared, problems
from tests.unit.fleet.test_fleet import key as key

GGUF = {"model": gguf_model("Qwen3-8B"), "weights": "/srv/m.gguf"}
AWQ = {"model": "Qwen/Qwen2.5-14B-Instruct-AWQ", "weights": "/srv/m.gguf"}
ARCHIVE = {
    "archive": "/srv/llama-b11434-bin-ubuntu-x64.tar.gz",
    "sha256": "a" * 64,
    "device": "cpu",
}
T4 = {"gpu-1": ("gpu_hosts", {"gpus": "2x Tesla T4"}, "10.0.0.11")}
W8A8 = {"model": "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8"}
B200 = {"gpu-1": ("gpu_hosts", {"gpus": "1x NVIDIA B200"}, "10.0.0.11")}
LB = {"lb-1": ("balancers", {}, "10.0.0.10")}
ROWS: list[tuple[str, dict[str, Any], tuple[str, str]]] = [
    ("unknown engine", {"service": {"engine": "tgi"}}, ("services[0].engine", "'tgi' is no kind")),
    (
        "no version",
        {"engines": {"vllm": {"requirement": "vllm==newest"}}},
        ("engines.vllm.requirement", "vllm"),
    ),
    (
        "a version of which nothing is known",
        {"engines": {"vllm": {"requirement": "vllm==0.99.0"}}},
        ("engines.vllm.lock", "python -m roles.engine lock vllm==0.99.0"),
    ),
    (
        "no SHA-256",
        {"engines": {"llama_cpp": ARCHIVE | {"sha256": "A" * 64}}},
        ("engines.llama_cpp.sha256", "[0-9a-f]{64}"),
    ),
    (
        "GGUF for vLLM",
        {"service": GGUF | {"engine": "vllm"}},
        ("services[0].arguments", "set engine llama_cpp"),
    ),
    (
        "GGUF for SGLang",
        {"service": GGUF | {"engine": "sglang"}},
        ("services[0].weights", "set engine llama_cpp"),
    ),
    (
        "AWQ for llama.cpp",
        {"service": AWQ | {"engine": "llama_cpp"}, "engines": {"llama_cpp": ARCHIVE}},
        ("services[0].model", "llama.cpp loads GGUF files"),
    ),
    (
        "AWQ for Ollama",
        {"service": AWQ | {"engine": "ollama"}},
        ("services[0].model", "Ollama loads GGUF files"),
    ),
    (
        "cards that an engine does not run on",
        {"hosts": T4 | LB, "service": {"engine": "sglang", "model": "Qwen/Qwen3-0.6B"}},
        ("hosts[gpu-1].gpus", "compute capability 7.5, and sglang 0.5.23 (CUDA 13.0) needs 8.0"),
    ),
    (
        "kernels that the cards lack, vLLM",
        {"hosts": B200 | LB, "service": W8A8},
        ("services[0].model", "fits no host"),
    ),
    (
        "kernels that the cards lack, SGLang",
        {"hosts": B200 | LB, "service": W8A8 | {"engine": "sglang"}},
        ("services[0].model", "fits no host"),
    ),
    (
        "options of vLLM for llama.cpp",
        {
            "service": GGUF | {"arguments": {"max-num-seqs": 8}},
            "engines": {"llama_cpp": ARCHIVE},
        },
        ("services[0].arguments", "an option of vLLM"),
    ),
    (
        "options of llama.cpp for vLLM",
        {"service": {"arguments": {"cache-reuse": 8}}},
        ("services[0].arguments", "an option of llama.cpp"),
    ),
    (
        "a build of llama.cpp that is none",
        {"engines": {"llama_cpp": ARCHIVE | {"version": "latest"}}},
        ("engines.llama_cpp.version", "latest"),
    ),
    (
        "an archive of another build",
        {"engines": {"llama_cpp": ARCHIVE | {"version": "b11000"}}},
        ("engines.llama_cpp", "is build b11434, and version is b11000"),
    ),
    (
        "a version of Ollama that is none",
        {"engines": {"ollama": {"version": "latest"}}},
        ("engines.ollama.version", "latest"),
    ),
    (
        "options of another engine",
        {"service": {"engine": "sglang", "arguments": {"max-num-seqs": 8}}},
        ("services[0].arguments", "an option of vLLM"),
    ),
    (
        "an archive for another system",
        {
            "engines": {
                "llama_cpp": ARCHIVE | {"archive": "/srv/llama-b11434-bin-macos-arm64.tar.gz"}
            }
        },
        ("engines.llama_cpp", "is for macos"),
    ),
    (
        "an archive for another device",
        {
            "engines": {
                "llama_cpp": ARCHIVE | {"archive": "/srv/llama-b11434-bin-ubuntu-cuda.tar.gz"}
            }
        },
        ("engines.llama_cpp", "is for cuda, and device is cpu"),
    ),
]


@pytest.mark.parametrize(("given", "said"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_it_is_refused_with_its_place(key: Path, given: dict[str, Any], said: tuple[str, str]):
    place, words = said
    found = problems(declared(key, **given))
    assert any(one.startswith(place) and words in one for one in found), found


def test_an_adapter_of_another_model_is_refused(key: Path, tmp_path: Path):
    adapter = peft(tmp_path / "style", base="Qwen/Qwen2.5-7B-Instruct")
    found = problems(declared(key, service={"adapters": {"style": str(adapter)}}))
    assert any("adapters.style: it was trained on Qwen/Qwen2.5-7B-Instruct" in one for one in found)
