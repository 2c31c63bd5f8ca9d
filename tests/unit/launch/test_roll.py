"""A roll stops on what failed in it, and on a balancer whenever it failed."""

from types import SimpleNamespace
from typing import Any

from roles.launch.roll import Roll


def state(*failed: str, executing: bool = True) -> Any:
    hosts = [SimpleNamespace(name=name) for name in failed]
    return SimpleNamespace(failed_hosts=hosts, is_executing=executing)


def test_earlier_failures_do_not_stop_it_but_later_ones_do():
    roll = Roll(state("gpu9"), frozenset({"lb1"}))
    assert roll.stopped_by() == ""
    roll.state = state("gpu9", "gpu1", "gpu2")
    assert roll.stopped_by() == "gpu1, gpu2"


def test_a_failed_balancer_always_stops_it():
    assert Roll(state("lb1", "gpu9"), frozenset({"lb1"})).stopped_by() == "lb1"


def test_nothing_is_decided_before_the_run_executes():
    roll = Roll(state("lb1", executing=False), frozenset({"lb1"}))
    assert roll.stopped_by() == ""
    assert roll.failed_before is None
