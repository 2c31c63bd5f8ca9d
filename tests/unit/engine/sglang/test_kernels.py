"""What SGLang runs on, and what is said where it does not."""

from typing import Any

import pytest

from roles.engine.params import EngineParams
from roles.engine.refusal import Refusal
from roles.engine.sglang.kernels import ROWS, kernel_problem
from roles.engine.sglang.planning import SGLANG
from roles.hardware import Gpu
from roles.models import Model, find, parse_config
from roles.topology.named_gpus import named_gpu
from tests.gguf_models import gguf_model
from tests.unit.models.published import read

QWEN = "Qwen/Qwen2.5-7B-Instruct"
DEEPSEEK = "deepseek-ai/DeepSeek-V3.2"


def form(method: str) -> Model:
    if method == "mxfp4":
        return find("openai/gpt-oss-20b")
    return parse_config(read("Qwen2.5-7B-Instruct"), quantization=method, model_id=QWEN)


def problem(model: Model, gpu: str, **params: Any) -> Refusal | None:
    return kernel_problem(model, EngineParams(**params), named_gpu(gpu, None))


@pytest.mark.parametrize(
    ("method", "runs_on", "not_on"),
    [
        ("fp8", ("A100", "L40S", "H100", "B200", "RTX PRO 6000", "MI300X"), ("T4", "MI210")),
        ("int8", ("A100", "H100"), ("B200", "MI300X")),
        ("nvfp4", ("A100", "H100", "B200"), ("MI300X", "MI355X")),
        ("mxfp4", ("A100", "H100", "B200", "MI355X"), ("MI300X",)),
        ("awq", ("A100", "B200", "MI300X"), ("T4",)),
        ("gptq", ("A100", "B200"), ("MI300X",)),
        ("bitsandbytes", (), ("A100", "H100", "B200")),
    ],
)
def test_methods_by_card(method: str, runs_on: tuple[str, ...], not_on: tuple[str, ...]):
    model = form(method)
    assert {gpu: problem(model, gpu) for gpu in runs_on} == dict.fromkeys(runs_on)
    assert all(problem(model, gpu) for gpu in not_on)


@pytest.mark.parametrize(
    ("method", "gpu", "nearest"),
    [
        ("int8", "B200", "in FP8 "),
        ("gptq", "MI300X", "in AWQ or GPTQ "),
        ("nvfp4", "MI300X", "in AWQ or GPTQ "),
        ("bitsandbytes", "H100", "such as Qwen/Qwen2.5-7B-Instruct-AWQ"),
    ],
)
def test_the_nearest_form_that_runs_is_named(method: str, gpu: str, nearest: str):
    assert nearest in str(problem(form(method), gpu)).rpartition("; ")[2]


def test_a_gguf_file_is_left_to_the_engine_for_it():
    found = str(problem(gguf_model("Llama-3.1-8B-Instruct"), "H100"))
    assert found.startswith("GGUF weights: no kernels") and "llama_cpp" in found


@pytest.mark.parametrize(
    ("model", "gpu", "params", "expected"),
    [
        (QWEN, "A100", {"kv_cache_dtype": "fp8_e4m3"}, None),
        ("deepseek-ai/DeepSeek-R1", "A100", {"kv_cache_dtype": "fp8_e4m3"}, '"bfloat16"'),
        ("deepseek-ai/DeepSeek-R1", "H200", {"kv_cache_dtype": "fp8_e4m3"}, None),
        (DEEPSEEK, "A100", {}, "use another GPU"),
        (DEEPSEEK, "H200", {}, None),
        (QWEN, "B200", {"quantization": "w8a8_int8"}, "in FP8"),
        (QWEN, "H100", {"quantization": "w8a8_fp8"}, None),
    ],
)
def test_caches_and_attention(model: str, gpu: str, params: dict, expected: str | None):
    found = problem(find(model), gpu, **params)
    assert found is None if expected is None else expected in str(found)


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (Gpu(0, "Tesla T4", 15360), "compute capability 7.5, SGLang needs 8.0"),
        (Gpu(0, "Tesla V100-SXM2-32GB", 32768), "compute capability 7.0, SGLang needs 8.0"),
        (Gpu(0, "NVIDIA L4", 23034), None),
        (Gpu(0, "AMD Instinct MI300X", 196592), None),
        (Gpu(0, "AMD Instinct MI210", 65520), "SGLang: no kernels for AMD Instinct MI210"),
    ],
)
def test_cards_that_it_does_not_run_on(gpu: Gpu, words: str | None):
    found = SGLANG.unsupported(find(QWEN), EngineParams(), None, gpu)
    assert found is None if words is None else words in str(found)


def test_every_row_says_where_it_is_from():
    assert all(one.source for one in ROWS)
    assert len({one.subject for one in ROWS}) == len(ROWS)
