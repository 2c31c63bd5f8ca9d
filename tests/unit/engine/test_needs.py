"""What programs built for a version of CUDA need, whatever engine they are of."""

from dataclasses import fields
from typing import Any

import pytest

from roles.engine.needs import (
    CudaNeeds,
    EngineNeeds,
    OlderBuild,
    PackageIndex,
    cuda_needs,
    strictest,
)


@pytest.mark.parametrize(
    ("cuda", "branch", "capability"),
    [
        ("12.0", 525, 5.0),
        ("12.9", 525, 5.0),
        ("13.0", 580, 7.5),
        ("13.10", 580, 7.5),
        # What comes after it needs no less.
        ("14.0", 580, 7.5),
    ],
)
def test_driver_and_cards_follow_from_cuda(cuda: str, branch: int, capability: float):
    assert cuda_needs(cuda) == CudaNeeds(branch, capability)


def test_an_engine_may_need_newer_cards_than_cuda_does():
    assert cuda_needs("12.8", 7.0) == CudaNeeds(525, 7.0)
    assert cuda_needs("13.0", 7.0) == CudaNeeds(580, 7.5)


def test_without_cuda_nothing_is_needed():
    assert cuda_needs(None) == CudaNeeds(None, None)


def needs(name: str, least: float, older: OlderBuild | None) -> EngineNeeds:
    return EngineNeeds(name, "cuda", compute_capability=least, older_build=older)


@pytest.mark.parametrize("field", [one.name for one in fields(EngineNeeds)])
def test_the_strictest_of_one_engine_are_its_own(field: str):
    given: dict[str, Any] = {
        "name": "a 1",
        "device": "cuda",
        "cuda": "12.8",
        "driver_branch": 570,
        "compute_capability": 7.5,
        "glibc": (2, 34),
        "python": (3, 11),
        "package_indexes": (PackageIndex("python3"),),
        "archives": ("https://example.com/a.tar.gz",),
        "installed_gib": 7,
        "built_below": (2, 39),
        "older_build": OlderBuild(7.5, "a 0"),
    }
    assert given.keys() == {one.name for one in fields(EngineNeeds)}
    one = EngineNeeds(**given)
    assert getattr(strictest([one]), field) == getattr(one, field)


def test_engines_of_one_host_suit_a_card_if_each_does():
    one = needs("a", 7.5, OlderBuild(7.0, "a 1"))
    other = needs("b", 7.5, OlderBuild(5.0, "b 1"))
    assert strictest([one, other]).older_build == OlderBuild(7.0, "a 1 and b 1")
    # One that is built for these cards already is not to be changed.
    assert strictest([other, needs("c", 7.0, None)]).older_build == OlderBuild(7.0, "b 1")
    assert strictest([one, EngineNeeds("d", "cpu")]).older_build == OlderBuild(7.0, "a 1")
    assert strictest([needs("c", 7.0, None)]).older_build is None
