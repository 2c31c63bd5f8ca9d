"""Options of SGLang that a service may set: all that its parser knows are judged."""

import pytest

from roles.engine.arguments import option_names
from roles.engine.params import EngineParams
from roles.engine.sglang.arguments import COUNTS, OPTIONS, PLANNED, check_arguments
from roles.engine.sglang.planning import SGLANG
from roles.engine.sglang.settings import SglangSettings
from roles.engine.sglang.start import _SEVERAL

KNOWN = option_names(OPTIONS)


def test_each_option_that_something_else_decides_is_one_of_sglangs():
    for name in PLANNED:
        assert name in KNOWN or any(one.startswith(name) for one in KNOWN)
    assert set(COUNTS) <= KNOWN and _SEVERAL <= KNOWN


def test_an_option_is_not_taken_for_the_beginning_of_another():
    check_arguments({"log-requests": True})
    with pytest.raises(ValueError, match="follows from"):
        check_arguments({"log-requests-ta": "x"})


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_each_option_is_taken_or_refused_with_a_remedy(name: str):
    value = 8 if name in COUNTS else "auto" if name in ("dtype", "kv-cache-dtype") else True
    if name == "quantization":
        value = "fp8"
    try:
        check_arguments({name: value})
    except ValueError as error:
        assert name in str(error) and ("follows from" in str(error) or "; " in str(error))
    assert SglangSettings().unknown_options({name: value}) == ()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("api-key", "sk-1", "set balancer.engine_key_file"),
        ("admin-api-key", "sk-1", "set balancer.engine_key_file"),
        ("tp-size", 2, "leave it to the plan"),
        ("tensor-parallel-size", 2, "leave it to the plan"),
        ("tp", 2, "leave it to the plan"),
        ("dp-size", 2, "each replica is an engine of its own"),
        ("enable-dp-attention", True, "each replica is an engine of its own"),
        ("nnodes", 2, "set services[].members"),
        ("mem-fraction-static", 0.9, "gpu_memory_utilization"),
        ("max-total-tokens", 4096, "kv_cache_memory_bytes"),
        ("context-length", 4096, "max_model_len"),
        ("served-model-name", "x", "services[].model"),
        ("log-level", "error", "says how far a start is"),
        ("disaggregation-mode", "decode", "serves whole requests"),
        ("ssl-keyfile", "/x", "clients' TLS ends at the balancer"),
        ("quantization", "gguf", "llama_cpp"),
        ("load-format", "gguf", "llama_cpp"),
        ("quantization", "awq_marlinn", "did you mean awq_marlin?"),
        ("tool-call-parser", "llama3_json", "did you mean llama3?"),
        ("reasoning-parser", "deepseek_r1", "did you mean deepseek-r1?"),
        ("dtype", "bfloat61", "did you mean bfloat16?"),
        ("kv-cache-dtype", "nvfp4", "none that the plan knows"),
        ("kv-cache-dtype", "fp8", "none that the plan knows"),
        ("max-running-requests", 0, "no positive integer"),
        ("max-running-requests", 2**30, "more than a GPU does"),
        ("chunked-prefill-size", -1, "no positive integer"),
        ("chunked-prefill", 512, "write `chunked-prefill-size`"),
        ("disable-cuda-graph", "yes", "neither true nor false"),
        ("--tool-call-parser", "qwen", "is no option"),
    ],
)
def test_what_contradicts_the_plan_is_refused(name: str, value: object, words: str):
    with pytest.raises(ValueError) as caught:
        check_arguments({name: value})  # type: ignore[dict-item]
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"tool-call-parser": "qwen25", "reasoning-parser": "qwen3"},
        {"schedule-policy": "lpm", "attention-backend": "fa3", "trust-remote-code": True},
        {"kv-cache-dtype": "fp8_e4m3", "max-running-requests": 64},
    ],
)
def test_what_a_service_may_say(arguments: dict):
    check_arguments(arguments)
    assert SglangSettings().unknown_options(arguments) == ()


def test_an_unknown_option_comes_with_the_nearest():
    (found,) = SglangSettings().unknown_options({"tool-cal-parser": "qwen"})
    assert "SGLang 0.5.23 does not know `tool-cal-parser`; did you mean tool-call-parser?" in found
    (found,) = SglangSettings().unknown_options({"max-num-seqs": 8})
    assert "does not know `max-num-seqs`" in found


def test_options_reach_the_memory_sum():
    found = SGLANG.with_arguments(
        EngineParams(),
        {
            "chunked-prefill-size": 2048,
            "max-running-requests": 16,
            "cuda-graph-max-bs-decode": 8,
            "kv-cache-dtype": "bf16",
            "disable-cuda-graph": True,
            "quantization": "fp8",
        },
    )
    assert (found.max_num_batched_tokens, found.max_num_seqs) == (2048, 16)
    assert (found.kv_cache_dtype, found.eager, found.quantization) == ("bfloat16", True, "fp8")
    assert dict(found.options) == {"cuda-graph-max-bs-decode": 8}
