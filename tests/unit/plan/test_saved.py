"""Saved plans: what is written, and what differs from it."""

from typing import Any

import pytest

from roles.hardware import declared_hardware
from roles.plan import Plan, plan_differences, saved
from roles.topology import ServiceSettings, plan_fleet

SERVICE = ServiceSettings.model_validate(
    {"name": "s", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
)


def plan(service: ServiceSettings = SERVICE, /, **gpus: str) -> Plan:
    return plan_fleet(service, {host: declared_hardware(message) for host, message in gpus.items()})


def changed(**settings: Any) -> ServiceSettings:
    data = {"name": "s", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
    return ServiceSettings.model_validate(data | settings)


def test_a_saved_plan_is_made_to_be_read():
    assert saved([plan(a="2x NVIDIA GeForce RTX 4090")]).split("\n", 2)[2] == (
        "s:\n  model: Qwen/Qwen2.5-14B-Instruct\n  settings: {max_model_len: '4096'}\n"
        "  machines:\n    a: {gpus: 2x NVIDIA GeForce RTX 4090 (24564 MiB)}\n"
        "  hosts:\n    a:\n"
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
        "a/s-0, a/s-1: llama_cpp → vllm, because engine llama_cpp → vllm",
    ]


def test_a_long_option_is_saved_whole():
    made = plan(changed(arguments={"chat-template": "x" * 1200}), a="1x NVIDIA L40S")
    assert plan_differences(saved([made]), [made]) == []


def test_a_file_of_before_several_engines_says_nothing_of_them():
    made = plan(a="2x NVIDIA L40S")
    before = saved([made]).replace("        engine: vllm\n", "")
    assert "engine" not in before
    assert plan_differences(before, [made]) == []


def test_what_differs_is_named():
    before = saved([plan(a="2x NVIDIA L40S", b="4x NVIDIA A10G")])
    output = plan_differences(before, [plan(a="1x NVIDIA L40S", b="4x NVIDIA L40S")])
    a = "gpus 2x NVIDIA L40S (46068 MiB) → 1x NVIDIA L40S (46068 MiB)"
    b = "gpus 4x NVIDIA A10G (23028 MiB) → 4x NVIDIA L40S (46068 MiB)"
    assert output == [
        f"a/s-1: goes away: one GPU on GPU 1, port 8002, because {a}",
        f"b/s-0: TP2 → one GPU; GPUs 0,1 → 0, because {b}",
        f"b/s-1: TP2 → one GPU; GPUs 2,3 → 1, because {b}",
        f"b/s-2: new: one GPU on GPU 2, port 8003, because {b}",
        f"b/s-3: new: one GPU on GPU 3, port 8004, because {b}",
    ]


TWO = {"a": "2x NVIDIA L40S", "b": "2x NVIDIA L40S"}


@pytest.mark.parametrize(
    ("before", "now", "differs"),
    [
        (
            plan(**TWO),
            plan(changed(max_model_len=8192, min_concurrency=1), **TWO),
            "a/s-0, a/s-1, b/s-0, b/s-1: max_model_len 4096 → 8192, because max_model_len 4096 → "
            "8192; min_concurrency unset → 1",
        ),
        (
            plan(**TWO),
            plan(changed(concurrency=8), **TWO),
            "because concurrency unset → 8",
        ),
        # The host is as it was; another one is not there any more.
        (
            plan(changed(concurrency=400), a="4x NVIDIA L40S", b="4x NVIDIA L40S"),
            plan(changed(concurrency=400), a="4x NVIDIA L40S"),
            "because the host is gone",
        ),
        (
            plan(a="2x NVIDIA L40S"),
            plan(**TWO),
            "b/s-0: new: one GPU on GPU 0, port 8001, because the host is new",
        ),
        (
            plan(a="2x NVIDIA L40S"),
            plan(changed(model="Qwen/Qwen2.5-32B-Instruct"), a="2x NVIDIA L40S"),
            "s: model Qwen/Qwen2.5-14B-Instruct → Qwen/Qwen2.5-32B-Instruct",
        ),
        (
            plan(a="2x NVIDIA L40S"),
            plan(changed(arguments={"kv-cache-dtype": "fp8"}, max_model_len=9), a=TWO["a"]),
            "arguments.kv-cache-dtype unset → fp8",
        ),
    ],
)  # fmt: skip
def test_a_difference_says_what_it_follows_from(before: Plan, now: Plan, differs: str):
    output = plan_differences(saved([before]), [now])
    assert any(differs in one for one in output), output


def test_a_load_that_is_shared_with_others_is_the_reason_on_a_host_that_did_not_change():
    one = {"a": "4x NVIDIA L40S"}
    both = one | {"b": "8x NVIDIA H100 80GB HBM3"}
    service = changed(concurrency=160)
    output = plan_differences(saved([plan(service, **one)]), [plan(service, **both)])
    own = [line for line in output if line.startswith("a/")]
    assert own and all("the load is shared with other hosts: b changed" in line for line in own)


def test_a_file_of_before_settings_were_saved_gives_no_reason():
    lines = saved([plan(a="2x NVIDIA L40S")]).splitlines(keepends=True)
    old = [one for one in lines if "settings" not in one and "machines" not in one]
    text = "".join(one for one in old if "a: {gpus" not in one)
    assert plan_differences(text, [plan(changed(max_model_len=8), a="2x NVIDIA L40S")]) == [
        "a/s-0, a/s-1: max_model_len 4096 → 8"
    ]


def test_what_one_of_both_does_not_set_is_named():
    made = plan(a="1x NVIDIA L40S")
    before = saved([made]).replace("engine: vllm", "engine: vllm\n        p2p: false")
    (told,) = plan_differences(before, [made])
    assert told.startswith("a/s-0: without P2P → with P2P, because ")


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
        (("  machines:", "  machine:"), r"s\.machine"),
        (("'4096'", "4096"), r"s\.settings\.max_model_len"),
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
