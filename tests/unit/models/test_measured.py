"""Weights and tokens against real start-ups: the figures that the project promises."""

from tests.benchmarks.weights_and_tokens import quantile, tokens_cases, weights_cases


def test_weights_are_as_real_startups_reported():
    cases = list(weights_cases())
    assert len(cases) > 90
    assert quantile(cases, 0.5) <= 0.005
    assert quantile(cases, 0.9) <= 0.03


def test_tokens_are_as_real_startups_printed():
    cases = list(tokens_cases())
    assert len(cases) > 100
    assert quantile(cases, 0.5) <= 0.001
    assert quantile(cases, 0.9) <= 0.01
