"""Inventories that SGLang cannot serve are refused before a host is contacted."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.inputs.inventories import changed, expect, fleet, problems

SERVED = ("service.engine", "sglang")
MODEL, OPTIONS = "services[0].model", "services[0].arguments"
BUILD = "engines.sglang"


def gpus(text: str) -> tuple[tuple[str, Any], ...]:
    return (("gpu1llm.gpus", text), ("gpu2llm.gpus", text))


def test_a_service_on_sglang_is_planned(folder: Path):
    made = fleet(folder, changed(folder, SERVED))
    assert {one.engine for one in made.plans[0].replicas} == {"sglang"}
    assert {str(one.shape) for one in made.plans[0].replicas} == {"one GPU", "TP4"}


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        # Engine and build.
        ([("service.engine", "sglng")], "services[0].engine", "no kind of engine"),
        ([("llm.engines.sglang", {"requirement": "sglang==latest"})], BUILD, "not allowed"),
        ([("llm.engines.sglang", {"requirement": "vllm==0.33.0"})], BUILD, "another package"),
        ([("llm.engines.sglang", {"requirement": "sglang==0.5.22"})], BUILD, "lock: is missing"),
        ([("llm.engines.sglang", {"device": "rocm"})], BUILD, "are for CUDA"),
        ([("llm.engines.sglang", {"wheelhouse": "ftp://x/y"})], BUILD, "not allowed"),
        # Drivers and cards.
        ([("driver.version", "570.86.15")], "driver.version", "older than sglang 0.5.23 needs"),
        ([("driver.branch", 570)], "driver.branch", "580"),
        (gpus("2x Tesla T4"), "gpu-1", "8.0"),
        (gpus("2x Tesla V100-SXM2-32GB"), "gpu-1", "8.0"),
        # Models.
        ([("service.weights", "/srv/x.gguf")], "services[0].weights", "set engine llama_cpp"),
        (
            [("service.model", "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8"),
             *gpus("1x NVIDIA B200")],
            MODEL,
            "in FP8",
        ),
        ([("service.model", "deepseek-ai/DeepSeek-R1")], MODEL, "fits no host"),
        # Options.
        ([("service.arguments", {"tool-cal-parser": "qwen"})], OPTIONS, "did you mean tool-call"),
        ([("service.arguments", {"max-num-seqs": 8})], OPTIONS, "is an option of vLLM"),
        ([("service.arguments", {"tp-size": 2})], OPTIONS, "leave it to the plan"),
        ([("service.arguments", {"api-key": "sk-1"})], OPTIONS, "balancer.engine_key_file"),
        ([("service.arguments", {"chunked-prefill-size": 0})], OPTIONS, "positive integer"),
    ],
)  # fmt: skip
def test_what_it_cannot_serve(folder: Path, changes: Any, place: str, words: str):
    found = problems(folder, changed(folder, SERVED, *changes))
    assert found, "nothing was refused"
    assert any(place in one and words in one for one in found), found
    assert not any("sk-1" in one for one in found)


def test_options_of_vllm_are_not_those_of_sglang(folder: Path):
    found = problems(folder, changed(folder, SERVED, ("service.arguments.dtype", "fp16")))
    expect(found, OPTIONS, "float16")
