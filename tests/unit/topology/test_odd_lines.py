"""Lines that ask for what cannot be: each is answered with the field and what is wanted there."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.topology import plan_command, predict
from tests.unit.models.published import read
from tests.unit.models.test_odd_configs import CONFIG_NAMES, ODD, places, with_value

PLAN: dict[str, Any] = {
    "id": "a",
    "model": "Qwen/Qwen3-8B",
    "host": {"gpus": [{"name": "NVIDIA L40S"}]},
}
START: dict[str, Any] = {
    "id": "a",
    "model": "Qwen/Qwen3-8B",
    "gpu": {"name": "NVIDIA L40S"},
    "max_model_len": 4096,
}
INF, NAN = float("inf"), float("nan")
Answers = Callable[[Iterable[str]], Iterator[dict[str, Any]]]


def on(*gpus: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"host": {"gpus": list(gpus), **more}}


def matrix(other: str) -> str:
    return f"\tGPU0\t{other}\nGPU0\t X \tNV4\n{other}\tNV4\t X \n"


# What is changed of the line, and what the error names: the field and what is wanted.
PLANS: list[tuple[dict[str, Any], str, str]] = [
    (on({"name": "L40S", "memory_gib": 46068}), "gpus[0].memory_gib", "46068 MiB is 44.99"),
    (on({"memory_gib": 81559}), "gpus[0].memory_gib", "give GiB"),
    (on({"name": "L40S"}, {"memory_gib": -80}), "gpus[1].memory_gib", "give GiB"),
    (on({"memory_gib": 0}), "gpus[0].memory_gib", "give GiB"),
    (on({"memory_gib": 1e308}), "gpus[0].memory_gib", "give GiB"),
    (on({"memory_gib": NAN}), "gpus[0].memory_gib", "finite number"),
    (on({"memory_gib": INF}), "gpus[0].memory_gib", "finite number"),
    (on({"memory_gib": "80 GiB"}), "gpus[0].memory_gib", "must be a number"),
    (on({"memory_gib": True}), "gpus[0].memory_gib", "must be a number"),
    (on({"name": "L40S", "memory_gib": 900}), "memory_gib is 900", "correct one"),
    (on({"name": ["L40S"]}), "gpus[0].name", "must be text"),
    (on({"name": "Voodoo 2"}), "host.gpus[0]", "set gpu.memory_gib"),
    (on({"name": "L" * 10**6}), "gpus[0].name", "at most 200"),
    (on({"card": "L40S"}), "gpus[0].card", "known keys: name, memory_gib"),
    (on({}), "host.gpus[0]", "set one of them"),
    (on({"name": "NVIDIA H100 MIG 9g.999gb"}), "host.gpus[0]: name", "3g.40gb"),
    (on({"name": "NVIDIA H100 MIG 7g.800gb"}), "host.gpus[0]: name", "correct one"),
    (on({"name": "NVIDIA A100 80GB MIG tiny"}), "host.gpus[0]: name", "3g.40gb"),
    (on({"name": "H100 MIG 1g.10gb", "memory_gib": 500}), "host.gpus[0]: name", "correct one"),
    (on(), "host.gpus", "at least 1"),
    (on(*[{"name": "L40S"}] * 65), "host.gpus", "at most 64"),
    ({"host": {"gpus": "8x H100"}}, "host.gpus", "must be a list"),
    ({"host": {}}, "host.gpus", "is missing; set it"),
    ({"host": "gpu1"}, "host", "must be an object"),
    (on(*[{"name": "L40S"}] * 2, links="infiniband"), "links", "nvidia-smi topo -m"),
    (on(*[{"name": "L40S"}] * 2, links=["nvlink"]), "host.links", "must be text"),
    (on(*[{"name": "L40S"}] * 2, links="X" * 10**6), "host.links", "at most"),
    (on(*[{"name": "L40S"}] * 2, links=matrix("GPU" + "1" * 5000)), "links", "for 1 columns"),
    (on(*[{"name": "L40S"}] * 2, links=matrix("GPU12345")), "links", "2 are declared"),
    ({"price_per_month": INF}, "price_per_month", "less than"),
    ({"price_per_month": NAN}, "price_per_month", "less than"),
    ({"price_per_month": 1e30}, "price_per_month", "less than"),
    ({"price_per_month": -1}, "price_per_month", "greater than"),
    ({"price_per_month": True}, "price_per_month", "must be a number"),
    ({"price_per_month": "1000 €"}, "price_per_month", "must be a number"),
    ({"workload": {"concurrency": 0}}, "workload.concurrency", "greater than 0"),
    ({"workload": {"concurrency": INF}}, "workload.concurrency", "finite"),
    ({"workload": {"concurrency": 1e12}}, "workload.concurrency", "less than"),
    ({"workload": {"concurrency": "8"}}, "workload.concurrency", "must be a number"),
    ({"workload": {"input_tokens": -1}}, "workload.input_tokens", "greater than 0"),
    ({"workload": {"input_tokens": True}}, "workload.input_tokens", "must be a whole number"),
    ({"workload": {"output_tokens": 1e9}}, "workload.output_tokens", "must be a whole number"),
    ({"workload": {"requests": 1}}, "workload.requests", "known keys: input_tokens"),
    ({"workload": [8]}, "workload", "must be an object"),
    ({"objective": "speed"}, "objective", "'throughput' or 'latency'"),
    ({"objective": {"ttft_limit_ms": INF}}, "objective.ttft_limit_ms", "less than"),
    ({"objective": {"itl_limit_ms": 0}}, "objective.itl_limit_ms", "greater than 0"),
    ({"objective": {"ttft_ms": 5}}, "objective.ttft_ms", "did you mean ttft_limit_ms?"),
    ({"max_model_len": 10**12}, "max_model_len", "less than"),
    ({"max_model_len": "8k"}, "max_model_len", "must be a whole number"),
    ({"max_model_len": 10**6}, "max_model_len", "lower"),
    ({"min_concurrency": 0}, "min_concurrency", "greater than 0"),
    ({"min_concurency": 2}, "min_concurency", "did you mean min_concurrency?"),
    ({"single_endpoint": "yes"}, "single_endpoint", "must be true or false"),
    ({"single_endpoint": 1}, "single_endpoint", "must be true or false"),
    ({"weights_bytes": 29}, "weights_bytes is 29", "must be near to"),
    ({"weights_bytes": 2**49}, "weights_bytes", "must be near to"),
    ({"weights_bytes": 16.1}, "weights_bytes", "must be a whole number"),
    ({"weights_bytes": "16 GB"}, "weights_bytes", "must be a whole number"),
    ({"weights_bytes": 10**400}, "weights_bytes", ""),
    ({"quantization": "int3"}, "quantization", "use one of"),
    ({"quantization": {"bits": 4}}, "quantization", "must be text"),
    ({"dtype": "int8"}, "dtype", "use float16"),
    ({"model": "Llama-3.3-70B"}, "model", "meta-llama/Llama-3.3-70B-Instruct"),
    ({"model": "Qwen/Qwen9-8B"}, "model", "or set config"),
    ({"model": "q" * 10**6}, "model", "at most 200"),
    ({"model": None}, "config", "set one of them"),
    ({"model": None, "config": {"a": 1}}, "config: hidden_size", "config.json"),
    ({"model": None, "config": "config.json"}, "config", "must be an object"),
    ({"id": [1]}, "id", "must be text or a whole number"),
]
STARTS: list[tuple[dict[str, Any], str, str]] = [
    ({"gpu": {"memory_gib": 46068}}, "gpu.memory_gib", "give GiB"),
    ({"gpu": "L40S"}, "gpu", "must be an object"),
    ({"tensor_parallel_size": 10**9}, "tensor_parallel_size", "less than"),
    ({"pipeline_parallel_size": 2**30}, "pipeline_parallel_size", "less than"),
    ({"data_parallel_size": True}, "data_parallel_size", "must be a whole number"),
    ({"gpu_memory_utilization": 92}, "gpu_memory_utilization", "less than"),
    ({"gpu_memory_utilization": True}, "gpu_memory_utilization", "must be a number"),
    ({"gpu_memory_utilization": NAN}, "gpu_memory_utilization", "less than"),
    ({"max_num_seqs": -1}, "max_num_seqs", "greater than 0"),
    ({"max_num_batched_tokens": 0.5}, "max_num_batched_tokens", "must be a whole number"),
    ({"enforce_eager": "true"}, "enforce_eager", "must be true or false"),
    ({"engine_version": 0.19}, "engine_version", "must be text"),
    ({"engine_version": "0." + "1" * 5000}, "engine_version", "match"),
    ({"kv_cache_dtype": "fp3"}, "kv_cache_dtype", "use auto"),
    ({"other_used_gib": -1}, "other_used_gib", "greater than"),
    ({"cpu_offload_gib": INF}, "cpu_offload_gib", "finite"),
    ({"available_kv_gib": -1e300}, "available_kv_gib", "greater than"),
    ({"gpu_utilization": 0.9}, "gpu_utilization", "did you mean gpu_memory_utilization?"),
]


@pytest.mark.parametrize(
    ("answers", "line", "change", "field", "wanted"),
    [
        *((plan_command.answers, PLAN, *case) for case in PLANS),
        *((predict.answers, START, *case) for case in STARTS),
    ],
)
def test_a_line_is_answered_with_the_field(
    answers: Answers, line: dict[str, Any], change: dict[str, Any], field: str, wanted: str
):
    (found,) = answers([json.dumps({**line, **change})])
    assert field in found["error"] and wanted in found["error"]
    assert found["id"] == ("a" if "id" not in change else None)
    assert "\n" not in found["error"] and len(found["error"]) < 500
    # Of all that pydantic says nothing comes through as it says it.
    assert " should " not in found["error"] and "instance of" not in found["error"]


@pytest.mark.parametrize("text", ["[1]", "5", '"text"', "null", "{", "NaN", "\ud800", "{}{}"])
def test_a_line_that_is_no_object(text: str):
    (found,) = plan_command.answers(["", text])
    assert found["id"] is None and found["error"].startswith("line 2 is no ")


@given(st.data())
def test_any_config_in_a_line_is_answered(data: st.DataObject):
    config = read(data.draw(st.sampled_from(CONFIG_NAMES)))
    path = data.draw(st.sampled_from(list(places(config))))
    odd = data.draw(ODD)
    own = {"model": None, "config": with_value(config, path, odd)}
    (plan,) = plan_command.answers([json.dumps({**PLAN, **own})])
    (start,) = predict.answers([json.dumps({**START, **own})])
    # A line with half a character is no text, and so has no id.
    assert plan["id"] == start["id"] == (None if odd == "\ud800" else "a")
