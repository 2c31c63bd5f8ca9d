"""Options of llama-server that a service may set."""

from typing import Any

import pytest

from roles.engine.engine import engine
from tests.gguf_models import gguf_model


def check(**arguments: Any) -> None:
    given = {name.replace("_", "-"): value for name, value in arguments.items()}
    engine("llama_cpp").check_arguments(given, gguf_model("Qwen3-0.6B"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"rpc": "127.0.0.2:18050,127.0.0.3:18050"},
        {"device": "RPC0,RPC1"},
        {"cache_type_k": "q8_0", "cache_type_v": "q8_0"},
        {"flash_attn": "off"},
        {"ubatch_size": 256, "batch_size": 1024},
        {"swa_full": True},
        {"threads": 2, "temp": 0.6, "jinja": True, "no_warmup": True},
    ],
)
def test_what_a_service_may_set(arguments: dict[str, Any]):
    check(**arguments)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("ctx-size", "set services[].max_model_len"),
        ("c", "set services[].max_model_len"),
        ("parallel", "set services[].max_model_len"),
        ("kv-unified", "set services[].max_model_len"),
        ("no-kv-unified", "set services[].max_model_len"),
        ("n-gpu-layers", "leave it to the plan"),
        ("tensor-split", "leave it to the plan"),
        ("split-mode", "leave it to the plan"),
        ("fit", "leave it to the plan"),
        ("no-kv-offload", "leave it to the plan"),
        ("n-cpu-moe", "leave it to the plan"),
        ("model", "set services[].weights"),
        ("hf-repo", "set services[].weights"),
        ("alias", "set services[].model"),
        ("api-key-file", "set balancer.engine_key_file"),
        ("ssl-key-file", "balancer.certificate_file"),
        ("spec-draft-model", "services[].speculative"),
        ("gpt-oss-20b-default", "serves one model"),
        ("tools", "reach files and programs"),
        ("slot-save-path", "reach files and programs"),
        ("metrics", "always on"),
        ("list-devices", "prints and ends"),
    ],
)
def test_what_another_setting_decides_is_refused(name: str, instead: str):
    with pytest.raises(ValueError, match="follows from the plan or another setting") as error:
        check(**{name: 1})
    assert instead in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ctk": "q8_0"}, "write `cache-type-k`"),
        ({"cache_type_k": "q3_k"}, "is no type"),
        ({"flash_attn": True}, "is none of on, off, auto"),
        ({"ubatch_size": 0}, "no positive integer"),
        ({"ubatch_size": True}, "no positive integer"),
        ({"cache_type_v": "q8_0", "flash_attn": "off"}, "needs flash attention"),
        ({"swa_full": "yes"}, "neither true nor false"),
        ({"rpc": "a\nb"}, "control characters"),
        ({"temp": float("inf")}, "no number"),
        ({"Rpc": "a"}, "is no option"),
    ],
)
def test_what_is_no_value(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        check(**arguments)
