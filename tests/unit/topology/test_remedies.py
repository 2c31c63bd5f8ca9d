"""What makes a model fit: as practitioners say for real cases, and true when done."""

import ast
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from roles.engine.params import EngineParams
from roles.hardware import declared_hardware
from roles.models import Model, find, variants
from roles.plan import Shape
from roles.topology import ServiceSettings, plan_fleet, plan_host
from roles.topology.named_gpus import named_gpu
from roles.topology.remedies import FitCase, longest_request, remedies
from tests.unit.models.published import published


def case(model: str, gpu: str, tp: int = 1, **params) -> FitCase:
    return FitCase(published(model), named_gpu(gpu, None), Shape(tp), EngineParams(**params))


def texts(tried: FitCase, forms: Sequence[Model] = ()) -> list[str]:
    return [str(found) for found in remedies(tried, forms)]


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
        (case("Llama-3.2-11B-Vision-Instruct", "A100 80GB", 1, max_model_len=8192), "max-num-seqs"),
        # Other processes hold 17 of 79 GiB.
        (
            case("phi-4", "H100 80G", max_model_len=8192, utilization=0.95, other_used_gib=17),
            "gpu_memory_utilization 0.78",
        ),
    ],
)
def test_remedies_of_real_cases(params: FitCase, remedy: str):
    assert not params.fits
    assert any(remedy in found for found in texts(params))


def test_fewer_requests_a_step_than_must_run_at_once_are_no_remedy():
    service = {"name": "s", "model": "Qwen/Qwen2.5-7B-Instruct", "max_model_len": 256}
    declared = ServiceSettings.model_validate(service | {"min_concurrency": 400})
    found = plan_host(declared, "h", declared_hardware("1x NVIDIA L4", None)).remedies
    numbers = [int(one) for line in found for one in re.findall(r'"max-num-seqs": (\d+)', line)]
    assert all(number >= 400 or "min_concurrency" in " ".join(found) for number in numbers)


def test_the_longest_request_is_near_vllms_own_estimate():
    params = case("Qwen3-4B", "RTX 5080", max_model_len=40960, utilization=0.9)
    assert longest_request(params) == pytest.approx(35600, rel=0.07)


def test_fp8_cache_only_where_the_gpu_has_it():
    for gpu, expected in (("RTX 3090", False), ("RTX 4090", True)):
        params = case("Qwen3-8B", gpu, max_model_len=40960, max_num_seqs=16, utilization=0.9)
        assert any("kv_cache_dtype fp8" in x for x in texts(params)) is expected


def test_a_quantised_form_is_named():
    model = find("Qwen/Qwen2.5-7B-Instruct")
    forms = [find(name) for name in variants(model.id)]
    params = FitCase(
        model, named_gpu("RTX 4070 12GB", None), Shape(1), EngineParams(max_model_len=4096)
    )
    assert any(form.id in found for found in texts(params, forms) for form in forms)


def test_what_nothing_helps_has_no_remedy():
    wide = case("phi-4", "H100 80G", max_model_len=2**30)
    assert [found for found in texts(wide) if not found.startswith("max_model_len")] == []


@given(st.integers(6, 40), st.integers(1024, 16384), st.integers(1, 8))
def test_the_longest_request_fits_and_a_longer_one_does_not(gib: int, length: int, requests: int):
    params = EngineParams(max_model_len=length, min_concurrency=requests, max_num_seqs=64)
    tried = FitCase(published("Qwen3-8B"), named_gpu(None, gib), Shape(1), params)
    if tried.fits:
        return
    most = longest_request(tried)
    if most is not None:
        assert replace(tried, params=replace(params, max_model_len=most)).fits
        assert not replace(tried, params=replace(params, max_model_len=most + 16)).fits


def pasted(
    service: dict[str, Any], gpus: str, remedy: str
) -> list[tuple[dict[str, Any], str | dict[str, str]]]:
    """The service and its hosts' GPUs after a printed line is pasted into the inventory; several
    hosts where the line's comment names others; two hosts for a cluster."""
    if found := re.match(r"a cluster of (\d+) hosts like this", remedy):
        return [(service, {f"h{number}": gpus for number in range(int(found[1]))})]
    items = ast.literal_eval(f"{{{remedy}\n}}")
    hosts = [items.pop("gpus", gpus), *re.findall(r'or "(\d+x [^"]+)"', remedy)]
    return [({**service, **items}, host) for host in hosts]


ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"dtype": "bfloat16", "trust-remote-code": True},
    {"max-num-seqs": 64, "kv-cache-dtype": "auto"},
]
# A load whose requests are longer than some remedies allow.
LOADS: list[dict[str, Any]] = [
    {},
    {"concurrency": 32},
    {"concurrency": 4, "input_tokens": 400, "output_tokens": 112},
]


@pytest.mark.parametrize(
    "model",
    [
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.3-70B-Instruct",
        "deepseek-ai/DeepSeek-R1",
    ],
)
@settings(max_examples=60)
@given(st.data())
def test_the_inventory_with_a_printed_line_is_planned(model: str, data: st.DataObject):
    cards = ["NVIDIA L4", "NVIDIA L40S", "NVIDIA A100-SXM4-80GB", "NVIDIA H20"]
    gpus = f"{data.draw(st.sampled_from([1, 2, 3, 4, 8]))}x {data.draw(st.sampled_from(cards))}"
    service = {
        "name": "s",
        "model": model,
        "max_model_len": data.draw(st.sampled_from([512, 4096, 8000, 65536, 131072])),
        "min_concurrency": data.draw(st.sampled_from([1, 4, 100, 5000])),
        "arguments": data.draw(st.sampled_from(ARGUMENTS)),
        **data.draw(st.sampled_from(LOADS)),
    }
    # Fewer requests a step than must be held at once are refused.
    assume(service["arguments"].get("max-num-seqs", 5000) >= service["min_concurrency"])
    remedied = plan_host(
        ServiceSettings.model_validate(service), "h", declared_hardware(gpus, None)
    ).remedies
    assert len(remedied) <= 3
    for remedy in remedied:
        for after, hosts in pasted(service, gpus, remedy):
            declared = ServiceSettings.model_validate(after)
            assert service["arguments"].keys() <= after["arguments"].keys()
            if isinstance(hosts, dict):
                machines = {host: declared_hardware(one) for host, one in hosts.items()}
                assert plan_fleet(declared, machines).clusters
                continue
            plan = plan_host(declared, "h", declared_hardware(hosts))
            assert plan.replicas, (gpus, service, remedy, plan.problems)


@pytest.mark.parametrize(
    ("model", "gpus", "settings", "remedy"),
    [
        # No form of fewer bits fits with all of the requests.
        (
            "meta-llama/Llama-3.3-70B-Instruct",
            "2x NVIDIA GeForce RTX 4090",
            {"max_model_len": 8192},
            r'"kv_cache_dtype": "fp8", "model": "\S+", "min_concurrency": \d,.*',
        ),
        (
            "meta-llama/Llama-3.1-8B-Instruct",
            "1x NVIDIA RTX A4000",
            {"max_model_len": 8192},
            r'"model": "\S+AWQ\S+",.*',
        ),
        # Eight serve it, sixteen are not needed.
        (
            "deepseek-ai/DeepSeek-V3",
            "1x NVIDIA RTX PRO 6000 Blackwell Server Edition",
            {"max_model_len": 8192},
            r'"gpus": "8x NVIDIA RTX PRO 6000 Blackwell Server Edition",.*',
        ),
        (
            "Qwen/Qwen2.5-7B-Instruct",
            "1x NVIDIA L40S",
            {"max_model_len": 8192, "min_concurrency": 10_000},
            r'"min_concurrency": \d\d,',
        ),
    ],
)
def test_changes_are_combined(model: str, gpus: str, settings: dict[str, Any], remedy: str):
    service = ServiceSettings.model_validate({"name": "s", "model": model, **settings})
    found = plan_host(service, "h", declared_hardware(gpus, None)).remedies
    assert any(re.fullmatch(remedy, one) for one in found), found
