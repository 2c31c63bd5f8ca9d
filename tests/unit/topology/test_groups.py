"""Replicas over declared hosts: what is planned, and what is refused with its place."""

from typing import Any

import pytest

from roles.hardware import declared_hardware
from roles.plan import Plan, plan_differences, saved
from roles.topology import ServiceSettings, plan_fleet, plan_services

TWO = [{"hosts": ["a", "b"]}]


def service(**more: Any) -> ServiceSettings:
    data = {"name": "s", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
    return ServiceSettings.model_validate(data | {"members": TWO} | more)


def plan(of: ServiceSettings, **gpus: str) -> Plan:
    return plan_fleet(of, {host: declared_hardware(text) for host, text in gpus.items()})


L40S = "1x NVIDIA L40S"


def test_a_pipeline_goes_over_hosts_and_tensor_parallel_where_it_is_declared():
    of = plan(service(), a=L40S, b=L40S)
    assert [(str(one.shape), one.hosts) for one in of.replicas] == [("PP2", ("a", "b"))]
    tensor = [{"hosts": ["b", "a"], "tensor_parallel_size": 2}]
    (replica,) = plan(service(members=tensor), a=L40S, b=L40S).replicas
    assert (str(replica.shape), replica.host, replica.members) == (
        "TP2",
        "b",
        (("b", (0,)), ("a", (0,))),
    )
    (both,) = plan(service(), a="2x NVIDIA L40S", b="2x NVIDIA L40S").replicas
    assert (str(both.shape), both.part_on("b").gpus) == ("TP2×PP2", (0, 1))


def test_other_hosts_serve_alone_and_each_host_is_there_once():
    of = plan(service(), c=L40S, a=L40S, b=L40S)
    assert [one.host for one in of.hosts] == ["c", "a", "b"]
    assert [one.id for one in of.replicas] == ["c/s-0", "a/s-0"]
    assert {one.host: [part.id for part in one.parts] for one in of.hosts} == {
        "c": [],
        "a": [],
        "b": ["a/s-0"],
    }
    # Two cards do what one does, twice.
    assert [one.weight for one in of.replicas] == [1, 2]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([["a", "x"]], r"services\[0\]\.members\[0\]\.hosts\[1\]: x has no GPUs in this plan"),
        ([["a", "c"]], r"services\[0\]\.members\[0\]: its hosts need the same number of the same"),
        ([["a", "d"]], r"services\[0\]\.members\[0\]: its hosts need .* d: 2x NVIDIA L40S"),
        (
            [{"hosts": ["a", "b"], "tensor_parallel_size": 3}],
            r"services\[0\]\.members\[0\]\.tensor_parallel_size: 3 does not divide its 2 GPUs",
        ),
        ([["e", "f"]], r"services\[0\]\.members\[0\]: its hosts do not hold .* together \(PP2: "),
    ],
)
def test_a_group_that_cannot_serve_is_refused_with_its_place(members: Any, problem: str):
    cards = {"a": L40S, "b": L40S, "c": "1x NVIDIA A10G", "d": "2x NVIDIA L40S"}
    cards |= {"e": "1x Tesla T4", "f": "1x Tesla T4"}
    hardware = {host: declared_hardware(text) for host, text in cards.items()}
    model = {"model": "Qwen/Qwen2.5-72B-Instruct"} if members == [["e", "f"]] else {}
    with pytest.raises(ValueError, match=problem):
        plan_services([service(members=members, **model)], hardware)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"members": [["a", "a"]]}, "a is there twice"),
        ({"members": [["a", "b"], ["b", "c"]]}, "b is in 2 groups"),
        ({"members": [["a"]]}, "at least 2"),
        ({"members": TWO, "engine": "ollama"}, "Ollama serves on one host alone"),
        ({"members": TWO, "single_endpoint": True}, "a single_endpoint is chosen by the plan"),
        ({"engine": "sglang", "executor": "ray"}, "SGLang does without Ray"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: Any, problem: str):
    with pytest.raises(ValueError, match=problem):
        service(**settings)


def test_a_saved_plan_knows_the_hosts_of_a_replica():
    before = plan(service(), a=L40S, b=L40S, c=L40S)
    assert plan_differences(saved([before]), [before]) == []
    now = plan(service(members=[["a", "c"]]), a=L40S, b=L40S, c=L40S)
    (gone, changed) = plan_differences(saved([before]), [now])[::-1][:2]
    assert "c/s-0: goes away" in gone + changed
    assert any("hosts a 0,b 0 → a 0,c 0" in one for one in plan_differences(saved([before]), [now]))


def test_a_port_is_the_heads_and_there_is_one():
    hardware = {"a": declared_hardware(L40S), "b": declared_hardware(L40S)}
    (replica,) = plan_fleet(service(), hardware, {"a": (9000,)}).replicas
    assert replica.port == 9000
    with pytest.raises(ValueError, match=r"hosts\[a\]\.ports: 2 ports for 1 replica"):
        plan_fleet(service(), hardware, {"a": (9000, 9001)})
