"""The first line of a plan answers what was asked."""

import re
from dataclasses import replace
from typing import Any

import pytest

from roles.hardware import declared_hardware
from roles.plan import Plan
from roles.topology import ServiceSettings, plan_fleet
from roles.topology.head_line import head_line

H100, T4, UNKNOWN = "8x NVIDIA H100 80GB HBM3", "1x Tesla T4", "1x NVIDIA X7"


def plan(*gpus: str, **settings: Any) -> Plan:
    data = {"name": "s", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 16384, **settings}
    hosts = {f"h{number}": declared_hardware(one, None) for number, one in enumerate(gpus)}
    return plan_fleet(ServiceSettings.model_validate(data), hosts)


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (
            plan(H100, T4, T4, concurrency=64),
            r"asked 64 · holds 160 of 16384 tokens · 7,\d{3} tokens/s \(6,\d{3}-7,\d{3}\) for "
            r"1024 \+ 256 tokens · 2 of 3 hosts idle",
        ),
        (
            plan(H100, concurrency=1000, input_tokens=500, output_tokens=100),
            r"asked 1,000 · holds \d+ of 16384 tokens, [\d,]+ of 600 · .* for 500 \+ 100 tokens",
        ),
        (plan(H100), r"no concurrency is stated · holds 104 of 16384 tokens"),
        (
            plan(T4, concurrency=0.5),
            r"asked 0\.5 · holds none · the host is idle",
        ),
        (
            plan(T4, T4, concurrency=2),
            r"asked 2 · holds none · 2 of 2 hosts idle",
        ),
        (
            plan(
                *["8x NVIDIA A100-SXM4-40GB"] * 2,
                model="meta-llama/Llama-3.1-405B-Instruct-FP8",
                max_model_len=8192,
            ),
            r"no concurrency is stated · holds 19 of 8192 tokens · replicas over 2 hosts",
        ),
    ],
)  # fmt: skip
def test_what_was_asked_is_answered(made: Plan, line: str):
    assert re.fullmatch(line, head_line(made)), head_line(made)


def test_replicas_without_an_estimate_are_counted():
    made = plan("2x NVIDIA L40S", "2x NVIDIA L40S", concurrency=8, max_model_len=4096)
    first, *others = made.hosts
    unknown = tuple(replace(one, expected=None) for one in first.replicas)
    partly = replace(made, hosts=(replace(first, replicas=unknown), *others))
    known = sum(one.expected is not None for one in partly.replicas)
    assert f"from {known} of {len(partly.replicas)} replicas" in head_line(partly)
    none = replace(made, hosts=(replace(first, replicas=unknown),))
    assert "no throughput is known" in head_line(none)


def test_the_figures_are_the_sums_of_the_replicas():
    made = plan(H100, concurrency=64)
    total = sum(one.expected.tokens_per_s for one in made.replicas if one.expected)
    assert f" · {total:,.0f} tokens/s (" in head_line(made)
    held = sum(int(one.memory.max_concurrency) for one in made.replicas)
    assert f"holds {held} of" in head_line(made)
