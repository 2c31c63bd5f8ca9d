"""What a plan says is so, and is said where it is so only."""

import json
from typing import Any

import pytest

from roles.hardware import Gpu, Hardware, declared_hardware
from roles.plan import HostPlan
from roles.topology import ServiceSettings, plan_host
from roles.topology.plan_command import answers
from tests.unit.models.published import read

SMALL, MIDDLE = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-14B-Instruct"
LARGE = "meta-llama/Llama-3.1-405B-Instruct-FP8"


def planned(gpus: str | Hardware, model: Any = MIDDLE, **settings: Any) -> HostPlan:
    service = {"name": "s", "model": model, "max_model_len": 4096, **settings}
    hardware = declared_hardware(gpus, "pcie") if isinstance(gpus, str) else gpus
    return plan_host(ServiceSettings.model_validate(service), "h", hardware)


UNKNOWN = Hardware(tuple(Gpu(index, "NVIDIA X7", 49152) for index in range(2)))
FREE = "no concurrency is stated"
ONLY = "is the only shape that fits"
MOST = "is the shape of most throughput that fits"
MOST_TENSOR = "is the shape of most throughput without a pipeline (one must lead by 25%) that fits"


@pytest.mark.parametrize(
    ("plan", "said", "unsaid"),
    [
        # It is stated; what is not known are the card's rates.
        (planned(UNKNOWN, concurrency=8), "", FREE),
        (planned(UNKNOWN), FREE, MOST),
        # One replica is no choice of the most.
        (planned("2x NVIDIA GeForce RTX 4090"), "so 1 replica of TP2", FREE),
        (planned("4x NVIDIA GeForce RTX 4090"), FREE, MOST),
        (planned("1x NVIDIA L40S", concurrency=8), ONLY, MOST),
        (planned("4x NVIDIA L40S", concurrency=8), MOST, ONLY),
        (planned("1x NVIDIA L40S", min_concurrency=1), "for 1 request of 4096", "1 requests"),
        (planned("8x NVIDIA L40S", concurrency=64), "mostly ", "bound by"),
        (
            planned("1x NVIDIA L40S", concurrency=200),
            "surely room for 42 of them, others may wait",
            "sure to hold",
        ),
    ],
)  # fmt: skip
def test_the_reason_of_a_shape(plan: HostPlan, said: str, unsaid: str):
    (first, *_) = plan.reasons
    assert said in first and unsaid not in first


H100 = declared_hardware("8x NVIDIA H100 80GB HBM3", "nvlink")


@pytest.mark.parametrize("gpus", ["8x NVIDIA L40S", "4x NVIDIA L40S", "5x NVIDIA L40S", H100])
@pytest.mark.parametrize("model", [SMALL, MIDDLE, "meta-llama/Llama-3.3-70B-Instruct"])
@pytest.mark.parametrize("concurrency", [16, 64, 256, 1000])
def test_most_throughput_is_said_of_what_has_most(
    gpus: str | Hardware, model: str, concurrency: int
):
    plan = planned(gpus, model, concurrency=concurrency)
    (first, *others) = plan.reasons
    if any("left over" in one for one in others):
        # The estimate is with smaller replicas beside the chosen ones.
        return
    chosen = _tokens_per_s(first)
    better = [one for one in plan.rejected if "estimated" in one and _tokens_per_s(one) > chosen]
    pipelines = {"PP" in one.partition(":")[0] for one in better}
    assert (MOST in first or ONLY in first) == (not better), better
    assert ("without a pipeline (one must lead by 25%)" in first) == (True in pipelines)
    assert ("with most replicas within 3% of most throughput" in first) == (False in pipelines)


def _tokens_per_s(reason: str) -> int:
    return int(reason.partition("estimated ")[2].partition(" tokens/s")[0].replace(",", ""))


@pytest.mark.parametrize(
    ("gpus", "model", "concurrency", "said"),
    [
        ("4x NVIDIA L40S", "meta-llama/Llama-3.3-70B-Instruct", 16, MOST_TENSOR),
        (H100, "meta-llama/Llama-3.3-70B-Instruct", 64, "with most replicas within 3% of most"),
        (H100, "Qwen/Qwen2.5-14B-Instruct", 128, "within 3% of most throughput without a pipeline"),
    ],
)
def test_pipelines_and_ties_that_are_better_are_told(
    gpus: str | Hardware, model: str, concurrency: int, said: str
):
    assert said in planned(gpus, model, concurrency=concurrency).reasons[0]


def test_a_card_that_is_too_small_is_not_called_a_gpu_that_does_not_fit_it():
    (first, *_) = planned("2x NVIDIA A10G").rejected
    assert first.startswith("the model does not fit one NVIDIA A10G: 27.6 GiB of weights, 20.3 GiB")
    assert first.endswith("7.3 GiB are missing")


def test_impossible_shapes_share_a_line_and_of_too_large_ones_the_largest_are_named():
    lines = list(planned("8x NVIDIA A100-SXM4-40GB", LARGE).rejected)
    (impossible,) = [one for one in lines if "not possible" in one]
    assert impossible == (
        "TP3, TP5, TP6, TP7, TP3×PP2 are not possible: 128 attention heads do not divide by "
        "3, 5, 6, 7"
    )
    assert len(lines) <= 7 and lines[-1].startswith("PP8 does not fit NVIDIA A100-SXM4-40GB: ")


def test_a_kind_of_card_that_serves_nothing_is_no_reason_of_the_others():
    plan = planned("1x NVIDIA L40S + 1x Tesla T4")
    assert plan.replicas
    assert plan.problems == (f"{MIDDLE} does not fit 1x Tesla T4 as asked",)
    assert not any("Tesla T4" in text for text in plan.reasons)


def test_a_card_of_before_the_newest_build_is_told_which_build_runs_it():
    case = {"model": SMALL, "host": {"gpus": [{"name": "Tesla V100-SXM2-32GB"}]}}
    (answer,) = answers([json.dumps(case)])
    assert "an engine built for CUDA 12 (vLLM 0.32 as +cu129, or 0.19)" in answer["error"]


def test_a_card_that_the_table_lacks_is_warned_of_by_plan_too():
    case = {"model": SMALL, "host": {"gpus": [{"name": "NVIDIA X7", "memory_gib": 48}]}}
    (answer,) = answers([json.dumps(case)])
    assert any("is not in the table of cards" in text for text in answer["warnings"])


def test_a_model_that_no_host_holds_is_told_to_need_a_cluster():
    """Eight GPUs of any kind are too few: nothing is for sale that would do."""
    plan = planned("8x NVIDIA H200", "moonshotai/Kimi-K2-Instruct", max_model_len=131072,
                   min_concurrency=64)  # fmt: skip
    assert any(one.startswith("a cluster of ") for one in plan.remedies), plan.remedies


@pytest.mark.parametrize(
    ("changed", "is_warned"),
    [({}, True), ({"weights": "/srv/mine"}, False), ({"model": MIDDLE}, False)],
)
def test_hosts_are_said_to_look_on_the_hub_for_a_model_that_nobody_knows_there(
    changed: dict[str, Any], is_warned: bool
):
    mine = {"id": "acme/mine", "config": read("Qwen2.5-7B-Instruct")}
    plan = planned("1x NVIDIA H200", **{"model": mine, **changed})
    assert any("set services[].weights" in one for one in plan.warnings) is is_warned
