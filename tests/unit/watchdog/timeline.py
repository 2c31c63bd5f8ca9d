"""A replica's life as a table: what is sampled each two seconds, and what the judge makes of it."""

from collections.abc import Iterable
from typing import Any

from roles.watchdog.on_host.judge import Probe, Sample, Times, first, judge

TIMES = Times(
    stall_timeout_s=8,
    idle_probe_s=5,
    probe_timeout_s=3,
    failed_probes=2,
    confirm_timeout_s=10,
    restart_after_s=35,
    start_timeout_s=1800,
)
SAMPLE_S = 2


def probe(kind: str, started: float) -> Probe:
    return Probe(kind, started, kind)


def sample(**more: Any) -> Sample:
    return Sample(**{"invocation": "a", "steps": 100, "pending": 0, **more})


def serving(now: float = 0, steps: int = 100) -> Any:
    """A replica that serves and whose counter is a heartbeat."""
    view = judge(first(now), sample(steps=steps - 1), TIMES, now)
    return judge(view, sample(steps=steps, probe=probe("good", now)), TIMES, now)


def after(view: Any, samples: Iterable[Sample], now: float = 0) -> list[Any]:
    """The views after each of the samples, the first of which comes two seconds after `now`."""
    views = []
    for one in samples:
        now += SAMPLE_S
        view = judge(view, one, TIMES, now)
        views.append(view)
    return views


def states(view: Any, samples: Iterable[Sample], now: float = 0) -> list[str]:
    return [one.state for one in after(view, samples, now)]
