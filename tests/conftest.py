"""For all tests."""

from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail: the laws are about results, not about time.
settings.register_profile(
    "no deadline", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("no deadline")
