"""What makes a model fit: as practitioners say for real cases, and true when done."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.engine.params import EngineParams
from roles.models import find, variants
from roles.plan import Shape
from roles.topology.named_gpus import named_gpu
from roles.topology.remedies import FitCase, remedies
from tests.unit.models.published import published


def case(model: str, gpu: str, tp: int = 1, **params) -> FitCase:
    return FitCase(published(model), named_gpu(gpu, None), Shape(tp), EngineParams(**params))


@pytest.mark.parametrize(
    ("params", "remedy"),
    [
        # vLLM itself estimated 35600 tokens at its default of 0.9.
        (case("Qwen3-4B", "RTX 5080", max_model_len=40960, utilization=0.9), "kv_cache_dtype fp8"),
        # "Use TP=2 or reduce context", said the one who tried.
        (case("Qwen3-32B", "H100 80G", max_model_len=32000, utilization=0.9), "2 GPUs like this"),
        # DeepSeek-R1 in FP8 runs on eight H200, or two hosts of H100.
        (case("DeepSeek-R1", "H100 80G", max_model_len=32768), "16 of 80 GiB, 8 of 141 GiB"),
        # A profile run with 256 pictures at once.
        (case("Llama-3.2-11B-Vision-Instruct", "A100 80GB", 1, max_model_len=8192), "max_num_seqs"),
        # Other processes hold 17 of 79 GiB.
        (
            case("phi-4", "H100 80G", max_model_len=8192, utilization=0.95, other_used_gib=17),
            "gpu_memory_utilization 0.78",
        ),
    ],
)
def test_remedies_of_real_cases(params: FitCase, remedy: str):
    assert not params.fits
    assert any(remedy in found for found in remedies(params))


def test_the_longest_request_is_near_vllms_own_estimate():
    params = case("Qwen3-4B", "RTX 5080", max_model_len=40960, utilization=0.9)
    (length,) = [int(x.split()[1]) for x in remedies(params) if x.startswith("max_model_len")]
    assert length == pytest.approx(35600, rel=0.07)


def test_fp8_cache_only_where_the_gpu_has_it():
    for gpu, expected in (("RTX 3090", False), ("RTX 4090", True)):
        params = case("Qwen3-8B", gpu, max_model_len=40960, max_num_seqs=16, utilization=0.9)
        assert ("kv_cache_dtype fp8" in remedies(params)) is expected


def test_a_quantised_form_is_named():
    model = find("Qwen/Qwen2.5-7B-Instruct")
    forms = [find(name) for name in variants(model.id)]
    params = FitCase(
        model, named_gpu("RTX 4070 12GB", None), Shape(1), EngineParams(max_model_len=4096)
    )
    assert any(form.id in found for found in remedies(params, forms) for form in forms)


def test_what_nothing_helps_has_no_remedy():
    wide = case("phi-4", "H100 80G", max_model_len=2**30)
    assert [found for found in remedies(wide) if not found.startswith("max_model_len")] == []


@given(st.integers(6, 40), st.integers(1024, 16384), st.integers(1, 8))
def test_the_longest_request_fits_and_a_longer_one_does_not(gib: int, length: int, requests: int):
    params = EngineParams(max_model_len=length, min_concurrency=requests, max_num_seqs=64)
    tried = FitCase(published("Qwen3-8B"), named_gpu(None, gib), Shape(1), params)
    if tried.fits:
        return
    for found in remedies(tried):
        if found.startswith("max_model_len"):
            most = int(found.split()[1])
            assert replace(tried, params=replace(params, max_model_len=most)).fits
            assert not replace(tried, params=replace(params, max_model_len=most + 16)).fits
