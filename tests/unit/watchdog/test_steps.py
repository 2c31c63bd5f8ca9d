"""The steps against a replica that does not recover."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.watchdog.on_host.steps import (
    DAY_S,
    HOUR_S,
    STEPS_PER_HOUR,
    Rules,
    has_settled,
    may_reboot,
    next_step,
    with_step,
)

PLAIN = Rules(3, 1800, False, False)
ALL = Rules(3, 1800, True, True)
THREE = [(0, "restart"), (100, "restart"), (200, "restart")]


@pytest.mark.parametrize(
    ("history", "now", "rules", "step"),
    [
        ([], 0, PLAIN, "restart"),
        (THREE[:2], 300, PLAIN, "restart"),
        (THREE, 300, PLAIN, "quarantine"),
        (THREE, 300, ALL, "reset"),
        ([*THREE, (300, "reset")], 400, ALL, "reboot"),
        ([*THREE, (300, "reset"), (400, "reboot")], 500, ALL, "quarantine"),
        (THREE, 300, ALL._replace(may_reset=False), "reboot"),
        # Its first restart is half an hour ago; it has served well since its restarts.
        (THREE, 1850, PLAIN, "restart"),
        ([*THREE, (900, "settled")], 1000, PLAIN, "restart"),
        # It settles again and again: an hour has its bound.
        ([(n * 500, s) for n in range(6) for s in ("restart", "settled")], 3000, PLAIN, ""),
    ],
)
def test_which_step_is_next(history: list[tuple[float, str]], now: float, rules: Rules, step: str):
    assert next_step(history, now, rules) == step


@pytest.mark.parametrize(
    ("least", "history", "rules", "step"),
    [
        ("reset", [], ALL, "reset"),
        ("reset", [(0, "reset")], ALL, "restart"),
        # Without leave to reset GPUs restarts are tried, as a GPU often works on.
        ("reset", [], PLAIN, "restart"),
        ("reset", THREE, PLAIN, "quarantine"),
        ("reboot", [], ALL, "reboot"),
        ("reboot", [(0, "reboot")], ALL, "quarantine"),
        ("reboot", [], PLAIN, "quarantine"),
        ("quarantine", [], ALL, "quarantine"),
    ],
)
def test_what_gpus_ask_for_leaves_lesser_steps_out(
    least: str, history: list[tuple[float, str]], rules: Rules, step: str
):
    assert next_step(history, 300, rules, least) == step


@given(st.lists(st.floats(1, 2000), max_size=80), st.booleans(), st.booleans())
def test_an_hour_has_its_bound_and_a_quarantine_comes(
    gaps: list[float], may_reset: bool, may_boot: bool
):
    history: list[tuple[float, str]] = []
    now, rules = 0.0, Rules(3, 1800, may_reset, may_boot)
    for gap in gaps:
        now += gap
        if step := next_step(history, now, rules):
            history = with_step(history, now, step)
        hour = [one for at, one in history if now - at < HOUR_S]
        assert len(hour) <= STEPS_PER_HOUR
        half = [one for at, one in history if now - at < 1800]
        assert half.count("restart") <= 3


def test_a_history_is_kept_for_a_day_and_bounded():
    history = [(-5.0, "restart"), (float(DAY_S), "restart")]
    assert with_step(history, DAY_S + 1, "reset") == [(DAY_S, "restart"), (DAY_S + 1, "reset")]
    # A clock that went back leaves entries in the future.
    assert with_step([(1e9, "restart")], 5, "reset") == [(5, "reset")]
    assert len(with_step([(0.0, "restart")] * 5000, 5, "reset")) == 101


@pytest.mark.parametrize(
    ("history", "served_s", "settled"),
    [
        ([], 9999, False),
        ([(0, "restart")], 599, False),
        ([(0, "restart")], 600, True),
        ([(0, "restart"), (700, "settled")], 9999, False),
    ],
)
def test_what_serves_long_enough_has_recovered(
    history: list[tuple[float, str]], served_s: float, settled: bool
):
    assert has_settled(history, served_s) is settled


@pytest.mark.parametrize(
    ("reboots", "serves", "may"),
    [
        ([], False, True),
        # Another replica of the host serves.
        ([], True, False),
        ([1e6 - DAY_S + 1], False, False),
        ([1e6 - DAY_S - 1], False, True),
        # The wall clock was set back.
        ([2e6], False, False),
    ],
)
def test_a_host_is_rebooted_once_a_day_at_most(reboots: list[float], serves: bool, may: bool):
    assert may_reboot(reboots, 1e6, serves) is may
