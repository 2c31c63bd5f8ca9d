"""What programs built for a version of CUDA need, whatever engine they are of."""

import pytest

from roles.engine.needs import CudaNeeds, cuda_needs


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
