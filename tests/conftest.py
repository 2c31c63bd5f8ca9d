"""For all tests."""

import gc

import pytest
from hypothesis import HealthCheck, Phase, settings

# A busy machine is no reason to fail: the laws are about results, not about time. A failure prints
# how to repeat it, so no database is kept.
settings.register_profile(
    "quick",
    deadline=None,
    max_examples=15,
    database=None,
    print_blob=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=300)
settings.load_profile("quick")


def pytest_collection_finish(session: pytest.Session) -> None:
    # What thousands of tests are made of stays to the end: looking for garbage among it takes a
    # tenth of their time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
