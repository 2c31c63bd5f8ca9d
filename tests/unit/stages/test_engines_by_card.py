"""A service whose cards have two engines is installed, rolled, watched and proved as any other."""

from pathlib import Path
from typing import Any

import pytest

from roles.stages.admission import host_needs
from roles.stages.validation import planned_replicas
from roles.stages.watchdog import planned_watch
from tests.unit.fleet.test_engines_by_card import SERVICE
from tests.unit.stages.fleet import ADDRESSES, ServingFleet

HOSTS: dict[str, dict[str, Any]] = {
    "gpu1": {"gpus": "2x NVIDIA L40S"},
    "gpu2": {"gpus": "4x NVIDIA A10G"},
    "gpu3": {"gpus": [{"name": "NVIDIA L40S"}, {"name": "NVIDIA A10G", "count": 4}]},
    "lb1": {},
}
ENGINES = {"gpu1": {"vllm"}, "gpu2": {"sglang"}, "gpu3": {"vllm", "sglang"}}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServingFleet:
    engines = {"vllm": {}, "sglang": {}}
    services = [SERVICE | {"name": "s"}]
    return ServingFleet(tmp_path, monkeypatch, HOSTS, services=services, engines=engines)


def test_a_rolling_update_brings_each_host_its_engines(fleet: ServingFleet):
    assert fleet.update() == set()
    moved = [one.removesuffix(" restarts") for one in fleet.history if "restarts" in one]
    assert sorted(moved) == list(ADDRESSES)
    # One after the other: each is drained before it restarts, and gets requests again before the
    # next is drained.
    assert fleet.history == [
        f"{name} {what}" for name in moved for what in ("drained", "restarts", "undrained")
    ]
    for name in ADDRESSES:
        entries = fleet.states[name].manifest.values()
        assert {one["engine"] for one in entries} == ENGINES[name]
        # Each says by which engine it runs, and its own folder how that starts.
        assert all(one["version"].startswith(one["engine"]) for one in entries)
    # A second run finds nothing to do.
    assert fleet.update() == set() and fleet.history == [] and fleet.tasks == []


def test_each_host_needs_watches_and_proves_its_own_engines(fleet: ServingFleet):
    run = fleet.begin()
    for name, kinds in ENGINES.items():
        host = run.fleet.host(name)
        assert set(planned_watch(run, name).engines) == kinds
        needs = host_needs(run.fleet, host).engine
        assert needs is not None and len(needs.folders) == len(kinds)
        replicas = [one for plan in run.fleet.plans for one in plan.replicas if one.host == name]
        assert [one.name for one in planned_replicas(run.fleet, host)] == [
            one.name for one in replicas
        ]
        assert set(needs.ports) == {one.port for one in replicas}
