"""What each build of an engine needs of a host."""

import pytest

from roles.engine import VllmSettings, engine_needs


@pytest.mark.parametrize(
    ("settings", "cuda", "branch", "capability"),
    [
        ({}, "13.0", 580, 7.5),
        ({"requirement": "vllm==0.20.0"}, "13.0", 580, 7.5),
        ({"requirement": "vllm==0.19.1"}, "12.8", 525, 7.0),
        ({"requirement": "vllm[audio]==0.33.0+cu129"}, "12.9", 525, 7.0),
        ({"extra_index_urls": ["https://wheels.example/0.33.0/cu129"]}, "12.9", 525, 7.0),
        ({"device": "rocm"}, None, None, None),
        ({"device": "cpu"}, None, None, None),
    ],
)
def test_the_driver_follows_from_the_build(settings, cuda, branch, capability):
    needs = engine_needs(VllmSettings.model_validate(settings))

    assert (needs.cuda, needs.driver_branch, needs.compute_capability) == (cuda, branch, capability)


def test_it_is_called_as_a_person_would():
    needs = engine_needs(VllmSettings.model_validate({"requirement": "vllm[audio]==0.33.0"}))

    assert needs.name == "vllm 0.33.0"
    assert (needs.glibc, needs.python) == ((2, 28), (3, 11))
