"""What Ollama plans as llama.cpp does, and what it refuses."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from roles.engine.engine import engine
from roles.engine.params import EngineParams, gpu_memory
from roles.hardware import declared_hardware
from roles.models import Model
from roles.plan import HostPlan, Shape
from roles.topology import ServiceSettings, plan_fleet, plan_host
from tests.gguf_models import gguf_model

LLAMA = "Llama-3.1-8B-Instruct"


def service(**more: Any) -> ServiceSettings:
    own = {"name": "chat", "model": gguf_model(LLAMA), "engine": "ollama", "max_model_len": 8192}
    return ServiceSettings.model_validate(own | {"weights": "/srv/m.gguf"} | more)


def planned(gpus: str, **more: Any) -> HostPlan:
    return plan_host(service(**more), "h", declared_hardware(gpus, None))


@pytest.mark.parametrize(
    ("gpus", "model"),
    [
        ("2x NVIDIA GeForce RTX 3090", LLAMA),
        ("1x NVIDIA GeForce RTX 4090 + 1x NVIDIA GeForce RTX 3090", "gemma-3-12b-it"),
    ],
)
def test_its_memory_is_that_of_the_llama_server_it_starts(gpus: str, model: str):
    more: dict[str, Any] = {"model": gguf_model(model), "min_concurrency": 4}
    own, same = planned(gpus, **more), planned(gpus, **more, engine="llama_cpp")
    assert own.replicas
    assert [(one.gpus, one.shape, one.memory) for one in own.replicas] == [
        (one.gpus, one.shape, one.memory) for one in same.replicas
    ]
    assert {one.engine for one in own.replicas} == {"ollama"}


def test_a_smaller_cache_is_a_remedy_by_its_own_setting():
    tight: dict[str, Any] = {"max_model_len": 20000, "min_concurrency": 4}
    plan = planned("1x NVIDIA GeForce RTX 3090", **tight)
    assert not plan.replicas
    assert any('"kv_cache_dtype": "q8_0"' in one for one in plan.remedies)
    assert planned("1x NVIDIA GeForce RTX 3090", **tight, kv_cache_dtype="q8_0").replicas


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"arguments": {"num-ctx": 4096}}, "num-ctx: Ollama takes no options"),
        ({"arguments": {"cache-type-k": "q8_0"}}, "kv_cache_dtype"),
        ({"kv_cache_dtype": "fp8"}, "none of Ollama's: f16, q8_0, q4_0"),
        ({"kv_cache_memory_bytes": 2**30}, "set these instead"),
        ({"weights": None}, "as in llama3.2:3b"),
        ({"weights": "/srv/models/qwen"}, "is no GGUF file"),
        ({"weights": "a/b/c/d"}, "or a model of a registry"),
    ],
)
def test_settings_of_others_are_refused(more: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        service(**more)


@pytest.mark.parametrize("weights", ["/srv/m.gguf", "llama3.2:3b", "hf.co/a/b:Q4_K_M"])
def test_a_file_or_a_registrys_model_is_taken(weights: str):
    assert service(weights=weights).weights == weights


def problem(model: Model, **params: Any) -> str | None:
    card = gpu_memory(declared_hardware("1x NVIDIA L40S", None).gpus[0])
    found = engine("ollama").kernel_problem(model, EngineParams(**params), card)
    return str(found) if found else None


def test_other_files_than_gguf_are_refused():
    plan = planned("1x NVIDIA L40S", model="Qwen/Qwen3-8B-AWQ")
    assert not plan.replicas
    assert any("python -m roles.models read FILE.gguf" in one for one in plan.remedies)


def test_a_name_that_it_does_not_take_is_refused():
    model = gguf_model(LLAMA)
    assert problem(model) is None
    found = problem(replace(model, id="a/b/c/d"))
    assert found is not None and "change id in its file" in found


def test_what_it_serves_one_request_of_at_a_time_is_refused_for_more():
    model = gguf_model(LLAMA)
    assert model.gguf is not None
    single = replace(model, gguf=replace(model.gguf, architecture="qwen3next"))
    found = problem(single, min_concurrency=8)
    assert found is not None and "min_concurrency 1" in found
    assert problem(single, min_concurrency=1) is None


def test_no_shape_over_hosts_or_of_tensors_is_offered():
    hosts = {name: declared_hardware("1x NVIDIA L40S", None) for name in ("a", "b")}
    plan = plan_fleet(service(model=gguf_model("Llama-3.1-70B-Instruct")), hosts)
    assert (plan.replicas, plan.clusters) == ((), ())
    assert plan.cluster_problems == ("Ollama serves on one host alone",)
    own = engine("ollama")
    assert {shape.tensor_parallel for shape in own.shapes(8)} == {1}
    model = gguf_model(LLAMA)
    assert own.check_shape(model, Shape(2))[1] == ("tensors are not split, layers are",)
    assert "too few for 40 GPUs" in own.check_shape(model, Shape(1, 40))[1][0]
