"""What a service may say: numbers as numbers, and no option that works against the plan."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from roles.hardware import declared_hardware
from roles.topology import ServiceSettings, plan_host
from tests.unit.models.published import read

DATA: dict[str, Any] = {
    "name": "s",
    "model": "Qwen/Qwen2.5-14B-Instruct",
    "max_model_len": 4096,
}


def service(**more: Any) -> ServiceSettings:
    return ServiceSettings.model_validate(DATA | more)


@pytest.mark.parametrize("value", [True, "5", 5.0, 0, -1, 2**50, 10**400, float("nan")])
@pytest.mark.parametrize(
    "name", ["max_model_len", "min_concurrency", "kv_cache_memory_bytes", "first_port"]
)
def test_integers_are_written_as_integers(name: str, value: Any):
    with pytest.raises(ValidationError, match=name):
        service(**{name: value})


@pytest.mark.parametrize("value", [True, "0.9", 0, -1, 0.99, float("nan"), float("inf")])
def test_a_share_of_memory_is_a_number(value: Any):
    with pytest.raises(ValidationError, match="gpu_memory_utilization"):
        service(gpu_memory_utilization=value)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("tensor-parallel-size", "leave it to the plan"),
        ("tp", "leave it to the plan"),
        ("tensor-parallel", "leave it to the plan"),
        ("pipeline-parallel-size", "leave it to the plan"),
        ("pp", "leave it to the plan"),
        ("decode-context-parallel-size", "leave it to the plan"),
        ("data-parallel-size", "engine of its own"),
        ("data-parallel-rank", "engine of its own"),
        ("data-parallel-hybrid-lb", "engine of its own"),
        ("no-data-parallel-hybrid-lb", "engine of its own"),
        ("dp", "engine of its own"),
        ("dpl", "engine of its own"),
        ("device-ids", "leave it to the plan"),
        ("distributed-executor-backend", "leave it to the plan"),
        ("nnodes", "set services[].members"),
        ("n", "set services[].members"),
        ("node-rank", "set services[].members"),
        ("master-addr", "set services[].members"),
        ("master-port", "set services[].members"),
        ("headless", "set services[].members"),
        ("hf-token", "set engines.vllm.hub_token_file"),
        ("ssl-keyfile", "balancer.certificate_file"),
        ("ssl-certfile", "balancer.certificate_file"),
        ("uds", "first_port"),
        ("root-path", "the balancer passes paths on"),
        ("grpc", "HTTP"),
        ("shutdown-timeout", "set launch.drain_timeout_s"),
        ("config", "set services[].arguments"),
        ("device-memory-utilization", "set services[].gpu_memory_utilization"),
        ("kv-cache-memory", "set services[].kv_cache_memory_bytes"),
        ("api-key", "set balancer.engine_key_file"),
    ],
)
def test_what_another_setting_decides_is_refused(name: str, instead: str):
    with pytest.raises(ValidationError) as error:
        service(arguments={name: 1})
    assert f"`{name}` follows from the plan or another setting; " in str(error.value)
    assert instead in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"api-server-count": 2},
        {"dtype": "half"},
        {"seed": 0},
        {"config-format": "mistral"},
        {"model-impl": "auto"},
        {"tokenizer": "a/b"},
        {"dp-sync-interval": 4},
        {"kv-cache-dtype-skip-layers": "0"},
        {"kv-cache-dtype": "fp8_e4m3"},
        {"no-enforce-eager": True},
        {"max-num-seqs": 8, "max-num-batched-tokens": 256},
        {"enable-prefix-caching": False, "watermark": 0.01},
    ],
)
def test_other_options_are_passed_on(arguments: dict[str, Any]):
    assert service(arguments=arguments).arguments == arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max-num-seqs": 0}, "max-num-seqs: 0 is no positive integer"),
        ({"max-num-seqs": True}, "max-num-seqs: True is no positive integer"),
        ({"max-num-seqs": "256"}, "max-num-seqs: '256' is no positive integer"),
        ({"max-num-seqs": 8.0}, "max-num-seqs: 8.0 is no positive integer"),
        ({"max-num-seqs": 2**31}, "is no positive integer"),
        ({"max-num-batched-tokens": "8k"}, "'8k' is no positive integer"),
        ({"max-num-batched-tokens": -1}, "-1 is no positive integer"),
        ({"max-num-batched-tokens": 64, "max-num-seqs": 65}, "set at least 65"),
        ({"max-num-s": 5}, "write `max-num-seqs`"),
        ({"enforce": True}, "write `enforce-eager`"),
        ({"enforce-eager": "yes"}, "enforce-eager: 'yes' is neither true nor false"),
        ({"enforce-eager": 1}, "enforce-eager: 1 is neither true nor false"),
        ({"kv-cache-dtype": "fp4"}, "'fp4' is none that the plan knows; set auto, bfloat16"),
        ({"kv-cache-dtype": 8}, "8 is none that the plan knows"),
        ({"seed": 10**400}, "seed: the number is too large"),
        ({"watermark": float("nan")}, "watermark: nan is no number"),
        ({"watermark": float("inf")}, "watermark: inf is no number"),
        ({"Max_Num": 1}, "'Max_Num' is no option"),
    ],
)
def test_options_that_cannot_be_reckoned_with_are_refused(arguments: dict, message: str):
    with pytest.raises(ValidationError) as error:
        service(arguments=arguments)
    assert message in str(error.value)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recorded model as `models/x.json` of the working directory."""
    monkeypatch.chdir(tmp_path)
    file = Path("models/x.json")
    file.parent.mkdir()
    model = {"id": "acme/x", "config": read("Qwen3-0.6B"), "weights_bytes": 1_192_099_840}
    file.write_text(json.dumps(model))
    return file


def test_a_model_may_be_a_file_or_what_is_in_it(recorded: Path):
    by_file = service(model=str(recorded))
    by_content = service(model=json.loads(recorded.read_text()))
    assert by_file.model == by_content.model
    assert (by_file.model.id, by_file.model.weights_bytes) == ("acme/x", 1_192_099_840)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models/y.json", "models/y.json is not there; make it: python -m roles.models read"),
        ("acme/x", "or name a .json file that `python -m roles.models read` made of it"),
        ({"id": "acme/x"}, "config: is missing"),
    ],
)
def test_a_model_that_is_not_there_says_how_to_get_it(recorded: Path, model: Any, message: str):
    with pytest.raises(ValidationError) as error:
        service(model=model)
    assert [detail["loc"] for detail in error.value.errors()] == [("model",)]
    assert message in str(error.value)


@pytest.mark.parametrize("gpus", ["1x NVIDIA L40S", "1x NVIDIA L40S + 2x NVIDIA A10G"])
def test_a_plan_warns_once_of_an_unknown_kind(recorded: Path, gpus: str):
    model = json.loads(recorded.read_text())
    model["config"]["model_type"] = "novel"
    asked = service(model=model, weights="/srv/x")
    plan = plan_host(asked, "h", declared_hardware(gpus, None))
    assert plan.replicas
    assert [text.partition(":")[0] for text in plan.warnings] == [
        "acme/x is of an unknown kind (novel)"
    ]


L40S = declared_hardware("1x NVIDIA L40S", None)


def test_a_plan_warns_that_hosts_will_look_for_a_local_model_on_the_hub(recorded: Path):
    own = json.loads(recorded.read_text())
    own.pop("revision", None)
    (warning,) = plan_host(service(model=own), "h", L40S).warnings
    assert "acme/x" in warning and "hub" in warning and "services[].weights" in warning
    for known in (
        {"model": own, "weights": "/srv/x"},
        {"model": own | {"revision": "0" * 40}},
        {"model": own | {"id": DATA["model"]}},
        {},
    ):
        assert plan_host(service(**known), "h", L40S).warnings == ()
