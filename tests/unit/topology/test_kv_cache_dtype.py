"""One setting for the KV cache's type: each engine has it by its own options, and plans with it."""

from typing import Any

import pytest
from pydantic import ValidationError

from roles.topology import ServiceSettings
from tests.gguf_models import gguf_model


def service(engine: str, **more: Any) -> ServiceSettings:
    is_gguf = engine != "vllm"
    own: dict[str, Any] = {
        "name": "chat",
        "engine": engine,
        "model": gguf_model("Llama-3.1-8B-Instruct") if is_gguf else "Qwen/Qwen3-8B",
        "weights": "/srv/m.gguf" if is_gguf else "/srv/qwen",
        "max_model_len": 8192,
    }
    return ServiceSettings.model_validate(own | more)


LLAMA = {"cache-type-k": "q8_0", "cache-type-v": "q8_0", "flash-attn": "on"}


@pytest.mark.parametrize(
    ("engine", "dtype", "options"),
    [
        ("vllm", "fp8", {"kv-cache-dtype": "fp8"}),
        ("llama_cpp", "q8_0", LLAMA),
        ("llama_cpp", "bf16", {"cache-type-k": "bf16", "cache-type-v": "bf16"}),
    ],
)
def test_it_is_the_engines_own_option(engine: str, dtype: str, options: dict[str, str]):
    found = service(engine, kv_cache_dtype=dtype, recipe=False)
    assert found.all_arguments == options
    written = service(engine, arguments=options, recipe=False)
    assert found.engine_params == written.engine_params
    assert found.engine_params != service(engine, recipe=False).engine_params


@pytest.mark.parametrize(
    ("engine", "more", "said"),
    [
        ("vllm", {"kv_cache_dtype": "q8_0"}, "none of vLLM's: auto"),
        ("llama_cpp", {"kv_cache_dtype": "fp8"}, "none of llama.cpp's: f32"),
        ("vllm", {"kv_cache_dtype": "FP8"}, "kv_cache_dtype"),
        (
            "vllm",
            {"kv_cache_dtype": "fp8", "arguments": {"kv-cache-dtype": "bfloat16"}},
            "kv-cache-dtype contradicts kv_cache_dtype fp8",
        ),
        (
            "llama_cpp",
            {"kv_cache_dtype": "q8_0", "arguments": {"flash-attn": "off"}},
            "flash-attn contradicts kv_cache_dtype q8_0",
        ),
    ],
)
def test_what_the_engine_does_not_have_is_refused(engine: str, more: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        service(engine, **more)


def test_what_says_the_same_twice_is_taken():
    more = {"kv_cache_dtype": "q8_0", "arguments": {"cache-type-k": "q8_0"}}
    assert service("llama_cpp", **more).all_arguments == LLAMA
