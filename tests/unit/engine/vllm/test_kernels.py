"""What vLLM runs on which card, against its own documentation and against real starts."""

from typing import Any

import pytest

from roles.engine.params import EngineParams
from roles.engine.refusal import Refusal
from roles.engine.vllm.kernels import ROWS
from roles.engine.vllm.planning import VLLM
from roles.engine.vllm.support import kernel_problem
from roles.models import Model, find, parse_config
from roles.topology.named_gpus import named_gpu
from tests.benchmarks.startup_rows import STARTED, Row, rows
from tests.unit.models.published import published, read

QWEN = "Qwen/Qwen2.5-7B-Instruct"


def form(method: str) -> Model:
    if method == "mxfp4":
        # vLLM quantises experts alone so.
        return find("openai/gpt-oss-20b")
    return parse_config(read("Qwen2.5-7B-Instruct"), quantization=method, model_id=QWEN)


def problem(model: Model, gpu: str, **params: Any) -> Refusal | None:
    return kernel_problem(model, EngineParams(**params), named_gpu(gpu, None))


@pytest.mark.parametrize(
    ("method", "runs_on", "not_on"),
    [
        ("int8", ("T4", "A100", "H100"), ("B200", "RTX PRO 6000", "RTX 5090")),
        ("fp8", ("T4", "A100", "L40S", "B200", "MI300X", "MI355X"), ("MI210", "MI250X")),
        ("nvfp4", ("T4", "A100", "H100", "B200"), ("MI300X", "MI355X")),
        ("mxfp4", ("A100", "H100", "B200", "MI300X"), ("T4", "MI210")),
        ("awq", ("T4", "B200", "MI300X"), ("MI100",)),
        ("bitsandbytes", ("T4", "B200"), ("MI300X",)),
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
        ("fp8", "MI210", "in INT8 "),
        ("nvfp4", "MI300X", "in AWQ or GPTQ "),
        ("bitsandbytes", "MI300X", "such as Qwen/Qwen2.5-7B-Instruct-AWQ"),
    ],
)
def test_the_nearest_form_that_runs_is_named(method: str, gpu: str, nearest: str):
    assert nearest in str(problem(form(method), gpu)).rpartition("; ")[2]


@pytest.mark.parametrize(
    ("method", "gpu", "version", "starts"),
    [
        # Marlin reads FP8 on Ampere from 0.5.2 on, and on Turing from 0.16 on.
        ("fp8", "A100", "0.5.1", False),
        ("fp8", "A100", "0.5.4", True),
        ("fp8", "T4", "0.15.1", False),
        ("nvfp4", "T4", "0.15.1", False),
        # The last versions with code for Volta.
        ("gptq", "V100", None, True),
        ("awq", "V100", None, False),
    ],
)
def test_methods_by_version(method: str, gpu: str, version: str | None, starts: bool):
    found = kernel_problem(form(method), EngineParams(engine_version=version), named_gpu(gpu, None))
    assert (found is None) == starts


@pytest.mark.parametrize(
    ("model", "gpu", "cache", "starts"),
    [
        (QWEN, "T4", "fp8", False),
        (QWEN, "A100", "fp8", True),
        (QWEN, "L4", "fp8_e5m2", True),
        ("deepseek-ai/DeepSeek-V3", "A100", "fp8", False),
        ("deepseek-ai/DeepSeek-V3", "H200", "fp8", True),
        ("deepseek-ai/DeepSeek-V3", "H200", "fp8_e5m2", False),
        ("openai/gpt-oss-120b", "A100", "fp8", False),
        (QWEN, "MI300X", "fp8", True),
    ],
)
def test_fp8_caches_by_card_and_attention(model: str, gpu: str, cache: str, starts: bool):
    found = problem(find(model), gpu, kv_cache_dtype=cache)
    assert (found is None) == starts
    if found:
        assert dict(found.instead.settings).keys() == {"kv_cache_dtype"}


@pytest.mark.parametrize(
    ("gpu", "starts"),
    [("A100", False), ("L40S", False), ("H200", True), ("B200", True), ("MI300X", True)],
)
def test_sparse_latent_attention_by_card(gpu: str, starts: bool):
    model = published("DeepSeek-V3.2")
    assert (problem(model, gpu) is None) == starts


def test_a_method_that_the_service_sets_is_looked_up_too():
    assert problem(find(QWEN), "MI300X", quantization="bitsandbytes")
    assert problem(find(QWEN), "MI300X", quantization="fp8") is None


@pytest.mark.parametrize(
    ("method", "plugin"),
    [("gguf q4_k_m", "vllm[extra-quant]"), ("bitsandbytes", "its plugin"), ("awq", None)],
)
def test_formats_that_need_a_plugin_are_warned_of(method: str, plugin: str | None):
    found = VLLM.doubts(form(method))
    assert any(plugin in text for text in found) if plugin else found == ()


def test_weight_only_integers_run_where_w8a8_does_not():
    weights = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
    for kind, starts in (("pack-quantized", True), ("int-quantized", False)):
        group = {"targets": ["Linear"], "weights": weights, "format": kind}
        scheme = {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}
        model = parse_config(read("Qwen2.5-7B-Instruct") | {"quantization_config": scheme})
        assert (problem(model, "B200") is None) == starts


def test_every_row_has_a_source():
    assert all(row.source for row in ROWS if row.subject != "fp8" or row.since)


STARTS = [row for row in rows() if row["outcome"] == STARTED and row.config and row["gpu_model"]]


@pytest.mark.parametrize("row", STARTS, ids=lambda row: row["id"])
def test_what_started_is_not_refused(row: Row):
    model = parse_config(row.config or {}, quantization=row.quantization)
    gpu = named_gpu(row["gpu_model"], row["gpu_mem_gib"])
    cache = row["kv_cache_dtype"] or "auto"
    params = EngineParams(kv_cache_dtype=cache, engine_version=row["vllm_version"])
    assert kernel_problem(model, params, gpu) is None
