"""What a plan says where it does not follow the usual advice, and that this is so."""

import re
from typing import Any

import pytest

from roles.hardware import declared_hardware
from roles.plan import HostPlan
from roles.topology import ServiceSettings, plan_host
from roles.topology.advice import MOST_REQUESTS, first_load

LLAMA_8B, LLAMA_70B = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-70B-Instruct"
H100, L40S, T4 = "NVIDIA H100 80GB HBM3", "NVIDIA L40S", "Tesla T4"
PRO = "NVIDIA RTX PRO 6000 Blackwell Server Edition"
MISTRAL = "mistralai/Mistral-Large-Instruct-2407"
FITS_ONE = r"the model fits one .* faster than .* replicas? of one GPU \(.*\)"
CROSSOVER = r"; from ([\d,]+) requests at once on this host on replicas win"
OVER_PCIE = r"usual advice is TP\d; its all-reduces over PCIe cost more than it gains here"
PIPELINE = r"usual advice is tensor parallel inside a host; here the all-reduces of TP"
HALF = r"Tesla T4 has no bfloat16, so the model runs in float16 \(half precision\)"
FEWER = r"set so that the model fits: .*max-num-seqs 64 \(requests a step, usually 256\)"
MORE = r"set so that the model fits: .*gpu-memory-utilization 0.95 \(usually 0.9\)"


def planned(model: str, gpus: str, links: str, concurrency: float | None, **more: Any) -> HostPlan:
    data = {"name": "s", "model": model, "max_model_len": 4096, "concurrency": concurrency, **more}
    service = ServiceSettings.model_validate({k: v for k, v in data.items() if v is not None})
    return plan_host(service, "h", declared_hardware(gpus, links))


CASES = [
    (LLAMA_8B, f"8x {H100}", "nvlink", 64, {}),
    (LLAMA_8B, f"8x {L40S}", "pcie", 400, {}),
    (LLAMA_8B, f"8x {L40S}", "pcie", 16, {}),
    (LLAMA_70B, f"8x {H100}", "nvlink", 64, {}),
    (MISTRAL, f"4x {PRO}", "pcie", 64, {}),
    (LLAMA_8B, f"8x {T4}", "pcie", 64, {}),
    ("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4", "2x NVIDIA GeForce RTX 4090", "pcie", 1,
     {"max_model_len": 8192}),
    ("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4", "2x NVIDIA GeForce RTX 4090", "pcie", 1,
     {"max_model_len": 8192, "min_concurrency": 2}),
    (LLAMA_8B, f"8x {H100}", "nvlink", None, {}),
]  # fmt: skip
SAID = [
    {FITS_ONE},
    {OVER_PCIE},
    {FITS_ONE, OVER_PCIE},
    set(),
    {PIPELINE},
    {HALF, OVER_PCIE},
    {FEWER},
    {FEWER, MORE},
    set(),
]


@pytest.mark.parametrize(("case", "said"), list(zip(CASES, SAID, strict=True)), ids=str)
def test_a_word_is_said_where_it_is_so_and_only_there(case: tuple, said: set[str]):
    model, gpus, links, concurrency, more = case
    reasons = planned(model, gpus, links, concurrency, **{"min_concurrency": 1, **more}).reasons
    for pattern in (FITS_ONE, OVER_PCIE, PIPELINE, HALF, FEWER, MORE):
        found = [text for text in reasons if re.match(pattern, text)]
        assert len(found) == int(pattern in said), (pattern, reasons)


@pytest.mark.parametrize(
    ("model", "gpus", "links", "concurrency", "more"),
    [
        (LLAMA_8B, f"8x {H100}", "nvlink", 64, {}),
        (LLAMA_8B, f"8x {L40S}", "pcie", 16, {}),
        ("Qwen/Qwen2.5-14B-Instruct", f"8x {H100}", "nvlink", 1, {}),
        ("Qwen/Qwen3-32B", "4x NVIDIA H200", "nvlink", 8, {}),
        (LLAMA_8B, f"2x {H100}", "nvlink", 4, {"input_tokens": 3000, "output_tokens": 500}),
    ],
)
def test_from_the_named_load_on_replicas_are_planned(
    model: str, gpus: str, links: str, concurrency: float, more: dict[str, Any]
):
    before = planned(model, gpus, links, concurrency, **more)
    (text,) = [text for text in before.reasons if re.match(FITS_ONE, text)]
    named = re.search(CROSSOVER, text)
    assert named is not None
    first = int(named[1].replace(",", ""))
    assert first > concurrency and before.replicas[0].shape.gpus > 1

    def gpus_of_a_replica(requests: int) -> int:
        return planned(model, gpus, links, requests, **more).replicas[0].shape.gpus

    assert gpus_of_a_replica(first) == 1
    assert gpus_of_a_replica(first - 1) > 1


@pytest.mark.parametrize(
    ("asked", "least", "expected"),
    [(1, 2, 2), (3.5, 4, 4), (64, 405, 405), (64, MOST_REQUESTS, MOST_REQUESTS), (64, 10**6, None)],
)
def test_the_first_load_is_found_by_bisection(asked: float, least: int, expected: int | None):
    tried: list[int] = []

    def is_reached(requests: int) -> bool:
        tried.append(requests)
        return requests >= least

    assert first_load(is_reached, asked) == expected
    assert len(tried) <= 40


@pytest.mark.parametrize(
    ("case", "said", "unsaid"),
    [
        ((LLAMA_8B, f"4x {L40S}", "pcie", 1, {"itl_limit_ms": 10}), "keep the limits", "faster"),
        (
            (LLAMA_8B, f"2x {L40S}", "pcie", 1, {"itl_limit_ms": 10}),
            "miss the limits by less",
            "faster",
        ),
        ((LLAMA_8B, f"4x {L40S}", "pcie", 1, {}), "are faster than 4 replicas", "limits"),
        (
            (LLAMA_70B, f"4x {L40S}", "pcie", 1, {"ttft_limit_ms": 500}),
            "pipelines here keep the limits, unlike TP4",
            "cost more",
        ),
    ],
)
def test_what_limits_decide_is_not_called_faster(case: tuple, said: str, unsaid: str):
    model, gpus, links, concurrency, more = case
    texts = planned(model, gpus, links, concurrency, **more).reasons
    (text,) = [one for one in texts if said in one]
    assert unsaid not in text


def test_no_load_is_named_where_replicas_never_win():
    """Two A10Gs miss the limit on the first token by less than one, whatever the load."""
    limits = {"ttft_limit_ms": 50, "min_concurrency": 1}
    reasons = planned(LLAMA_8B, "2x NVIDIA A10G", "pcie", 4, **limits).reasons
    (text,) = [text for text in reasons if "the model fits one" in text]
    assert re.search(CROSSOVER, text) is None
    more = planned(LLAMA_8B, "2x NVIDIA A10G", "pcie", MOST_REQUESTS, **limits)
    assert more.replicas[0].shape.gpus == 2
