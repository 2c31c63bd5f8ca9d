"""The load is shared by what can serve it, in proportion to what that can do."""

from collections.abc import Mapping
from typing import Any

import pytest

from roles.hardware import declared_hardware
from roles.topology import ServiceSettings, plan_fleet
from roles.topology.host_planner import load_shares


def service(**settings: Any) -> ServiceSettings:
    data = {"name": "s", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
    return ServiceSettings.model_validate(data | {"concurrency": 64} | settings)


def hosts(*gpus: str) -> Mapping[str, Any]:
    return {str(number): declared_hardware(one, "pcie") for number, one in enumerate(gpus)}


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (["2x NVIDIA L40S"] * 2, [0.5, 0.5]),
        # Twice the GPUs, twice the part.
        (["2x NVIDIA L40S", "4x NVIDIA L40S"], [1 / 3, 2 / 3]),
        # 3350 GB/s against 864.
        (["1x NVIDIA H100 80GB HBM3", "1x NVIDIA L40S"], [0.795, 0.205]),
        # 14 GB do not hold 28 GB of weights: the one host has all.
        (["1x Tesla T4", "2x NVIDIA L40S", "1x NVIDIA A10G"], [0, 1, 0]),
        # The engine does not run on P100, which counts on no host.
        (["1x NVIDIA L40S", "1x NVIDIA L40S + 4x P100-PCIE-16GB"], [0.5, 0.5]),
        (["1x Tesla T4"], [0]),
    ],
)
def test_hosts_share_the_load_by_what_they_can_do(gpus: list[str], expected: list[float]):
    found = load_shares(service(), hosts(*gpus))
    assert list(found.values()) == pytest.approx(expected, abs=0.001)


def test_a_single_endpoint_has_the_whole_load():
    assert load_shares(service(single_endpoint=True), hosts(*["2x NVIDIA L40S"] * 2)) == {
        "0": 1.0,
        "1": 1.0,
    }


def test_a_host_beside_idle_ones_is_planned_as_if_it_were_alone():
    alone = plan_fleet(service(), hosts("8x NVIDIA L40S"))
    beside = plan_fleet(service(), hosts("8x NVIDIA L40S", "1x Tesla T4", "1x NVIDIA L4"))
    assert beside.hosts[0] == alone.hosts[0]


def test_cards_of_a_host_that_cannot_serve_get_none_of_its_load():
    alone = plan_fleet(service(), hosts("2x NVIDIA L40S"))
    beside = plan_fleet(service(), hosts("2x NVIDIA L40S + 2x Tesla T4"))
    assert [one.expected for one in beside.replicas[:2]] == [one.expected for one in alone.replicas]


def test_each_host_is_ranked_for_its_part():
    """At 64 one host is split; four of them have 16 each, as one that is asked 16."""
    four = plan_fleet(service(), hosts(*["8x NVIDIA L40S"] * 4))
    quarter = plan_fleet(service(concurrency=16), hosts("8x NVIDIA L40S"))
    shapes = [(one.shape, one.expected) for one in quarter.replicas]
    for host in four.hosts:
        assert [(one.shape, one.expected) for one in host.replicas] == shapes
