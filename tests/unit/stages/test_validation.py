"""What validation is asked to prove of each service."""

from pathlib import Path
from typing import Any

import pytest

from roles.stages.validation import endpoint_of, planned_replicas, served
from tests.unit.stages.simulation import HOSTS, Simulation

BASE = {"model": "Qwen/Qwen3-8B", "max_model_len": 4096}


def fleet(folder: Path, monkeypatch: pytest.MonkeyPatch, hosts: Any = HOSTS, **settings: Any):
    return Simulation(folder, monkeypatch, hosts, **settings).fleet()


def test_each_service_is_proved_on_its_own_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    services = [
        BASE | {"name": "a"},
        BASE | {"name": "b", "first_port": 9001, "route": {"path_prefix": "/b"}},
    ]
    found = fleet(tmp_path, monkeypatch, services=services)
    asked = [
        (one.name, one.base_url, one.gpus) for one in planned_replicas(found, found.host("gpu1"))
    ]
    assert asked == [
        ("a-0", "http://127.0.0.1:8001", (0,)),
        ("b-0", "http://127.0.0.1:9001", (1,)),
    ]


@pytest.mark.parametrize(
    ("length", "abilities"), [(4096, ("tool_call",)), (1024, ())], ids=["long", "short"]
)
def test_what_a_recipe_has_a_parser_of_is_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, abilities: tuple[str, ...]
):
    parser = {"enable-auto-tool-choice": True, "tool-call-parser": "hermes"}
    service = BASE | {"name": "a", "arguments": parser, "recipe": False, "max_model_len": length}
    found = fleet(tmp_path, monkeypatch, services=[service])
    asked = planned_replicas(found, found.host("gpu1"))
    assert {one.abilities for one in asked} == {abilities}


@pytest.mark.parametrize(("more", "size"), [({}, 4096), ({"embedding_size": 256}, 256)])
def test_a_service_that_embeds_is_proved_by_a_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, int], size: int
):
    services = [BASE | {"name": "a", "task": "embed"} | more]
    found = fleet(tmp_path, monkeypatch, services=services)
    asked = planned_replicas(found, found.host("gpu1"))
    assert {(one.task, one.embedding_size) for one in asked} == {("embed", size)}
    ((service, plan),) = served(found)
    assert endpoint_of(found, found.host("lb1"), service, plan).task == "embed"


def test_slices_are_proved_by_the_gpu_that_the_driver_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sliced = {"gpus": "2x NVIDIA A100-SXM4-80GB", "tuning": {"mig": {0: ["3g.40gb", "3g.40gb"]}}}
    found = fleet(tmp_path, monkeypatch, HOSTS | {"gpu1": sliced}, services=[BASE | {"name": "a"}])
    asked = planned_replicas(found, found.host("gpu1"))
    assert [(one.gpus, one.sliced) for one in asked] == [((0,), (0,)), ((0,), (0,)), ((1,), ())]


def test_drained_and_retired_hosts_are_no_upstreams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hosts = HOSTS | {
        "gpu2": HOSTS["gpu2"] | {"drained": True},
        "gpu3": HOSTS["gpu3"] | {"retired": True},
    }
    found = fleet(tmp_path, monkeypatch, hosts)
    ((service, plan),) = found.services
    endpoint = endpoint_of(found, found.host("lb1"), service, plan)
    assert endpoint.base_url == "https://10.0.0.4:443"
    assert endpoint.upstreams == ("10.0.0.1:8001", "10.0.0.1:8002")


@pytest.mark.parametrize(("retired", "asked"), [(("gpu1",), 1), (("gpu1", "gpu2", "gpu3"), 0)])
def test_a_service_without_a_planned_replica_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retired: tuple[str, ...], asked: int
):
    hosts = HOSTS | {name: HOSTS[name] | {"retired": True} for name in retired}
    found = fleet(tmp_path, monkeypatch, hosts)
    assert len(served(found)) == asked
