"""Saved plans: what is written, and what differs from it."""

import pytest

from roles.hardware import declared_hardware
from roles.plan import Plan, plan_differences, saved
from roles.topology import ServiceSettings, plan_fleet

SERVICE = ServiceSettings.model_validate(
    {"name": "s", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
)


def plan(**gpus: str) -> Plan:
    return plan_fleet(SERVICE, {host: declared_hardware(message) for host, message in gpus.items()})


def test_a_saved_plan_is_made_to_be_read():
    assert saved([plan(a="2x NVIDIA GeForce RTX 4090")]).split("\n", 2)[2] == (
        "s:\n  model: Qwen/Qwen2.5-14B-Instruct\n  hosts:\n    a:\n"
        "      s-0:\n        gpus: [0, 1]\n        tensor_parallel_size: 2\n"
        "        pipeline_parallel_size: 1\n        port: 8001\n        max_model_len: 4096\n"
        "        engine: vllm\n"
    )


def test_the_same_plan_differs_in_nothing():
    made = plan(a="2x NVIDIA L40S", b="1x NVIDIA A10G")
    assert plan_differences(saved([made]), [made]) == []


def test_another_engine_is_another_plan():
    made = plan(a="2x NVIDIA L40S")
    before = saved([made]).replace("engine: vllm", "engine: llama_cpp")
    assert plan_differences(before, [made]) == [
        "a/s-0 has engine vllm, was engine llama_cpp",
        "a/s-1 has engine vllm, was engine llama_cpp",
    ]


def test_a_file_of_before_several_engines_says_nothing_of_them():
    made = plan(a="2x NVIDIA L40S")
    before = saved([made]).replace("        engine: vllm\n", "")
    assert "engine" not in before
    assert plan_differences(before, [made]) == []


def test_what_differs_is_named():
    before = saved([plan(a="2x NVIDIA L40S", b="4x NVIDIA A10G")])
    output = plan_differences(before, [plan(a="1x NVIDIA L40S", b="4x NVIDIA L40S")])
    assert [line.split(" (")[0].split(":")[0] for line in output] == [
        "a/s-1 is gone",
        "b/s-0 has gpus [0], tensor_parallel_size 1, was gpus [0, 1], tensor_parallel_size 2",
        "b/s-1 has gpus [1], tensor_parallel_size 1, was gpus [2, 3], tensor_parallel_size 2",
        "b/s-2 is new",
        "b/s-3 is new",
    ]


def test_what_one_of_both_does_not_set_is_named():
    made = plan(a="1x NVIDIA L40S")
    before = saved([made]).replace("engine: vllm", "engine: vllm\n        p2p: false")
    assert plan_differences(before, [made]) == ["a/s-0 has p2p not set, was p2p False"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# a comment\n", "is empty"),
        ("null\n", "is empty"),
        ("- 1", "no saved plan"),
        ("hosts: 3", r"no saved plan \(hosts"),
        ("a: {hosts: {a: 3}}", "no saved plan"),
        ("a: {", "is no YAML"),
        ("service: s", "no saved plan"),
        ("1: {model: m, hosts: {}}\n", "no saved plan"),
        ("a: {model: m, hosts: {}}\na: {model: m, hosts: {}}\n", "has a twice"),
        ("a: {model: m, hosts: {h: {}, h: {}}}\n", "has h twice"),
    ],
)
def test_what_is_no_saved_plan_is_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        plan_differences(text, [plan(a="1x NVIDIA L40S")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("gpus: [0]", "gpus: []"), r"a\.s-0\.gpus"),
        (("gpus: [0]", "gpus: [zero]"), r"a\.s-0\.gpus\.0"),
        (("port: 8001", "port: 99999"), r"a\.s-0\.port"),
        (("port: 8001", "port: true"), r"a\.s-0\.port"),
        (("tensor_parallel_size: 1", "tensor_parallel_size: 0"), "tensor_parallel_size"),
        (("max_model_len: 4096", "max_len: 4096"), "max_model_len"),
        (("model: Qwen/Qwen2.5-14B-Instruct", "model: 14"), r"s\.model"),
        (("  hosts:", "  host:"), r"s\.hosts"),
    ],
)
def test_a_saved_replica_is_read_strictly(change: tuple[str, str], message: str):
    made = plan(a="1x NVIDIA L40S")
    text = saved([made])
    assert change[0] in text
    with pytest.raises(ValueError, match=message):
        plan_differences(text.replace(*change), [made])


def test_a_saved_plan_that_is_cut_is_refused_or_differs():
    made = plan(a="2x NVIDIA L40S")
    text = saved([made])
    lines = [at + 1 for at, letter in enumerate(text[:-1]) if letter == "\n"]
    for end in {*lines, *range(0, len(text), 7)}:
        try:
            assert plan_differences(text[:end], [made])
        except ValueError:
            continue
