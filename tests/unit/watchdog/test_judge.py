"""Whether a replica works, judged from samples."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.watchdog.on_host.judge import (
    BLIND,
    CRASHES,
    STATES,
    Sample,
    first,
    judge,
    not_restarted,
    probe_limit_s,
    rebased,
    restarted,
    wants_restart,
)
from tests.unit.watchdog.timeline import SAMPLE_S, TIMES, after, probe, sample, serving, states

STALLED = sample(steps=100, pending=3)
LATE = sample(scrape="late", steps=None, pending=None)
REFUSED = sample(scrape="refused", steps=None, pending=None)
UNREADABLE = sample(scrape="unreadable", steps=None, pending=None)
STOPPED = sample(active=False, invocation="", scrape="late", steps=None, pending=None)


def moving(count: int, pending: int = 3) -> list[Sample]:
    return [sample(steps=101 + number, pending=pending) for number in range(count)]


def test_a_replica_is_watched_from_its_first_completion_on():
    begun = judge(first(0), sample(), TIMES, 0)
    assert begun.state == "starting"
    # However long its queue stands before that: it may still load or compile.
    assert states(begun, [STALLED] * 100) == ["starting"] * 100
    served = judge(begun, sample(probe=probe("good", 0)), TIMES, 2)
    assert (served.state, served.reason) == ("serving", "a completion")
    assert judge(begun, sample(steps=101, pending=1), TIMES, 2).state == "serving"


def test_a_counter_that_stands_while_requests_wait_takes_it_out_after_eight_seconds():
    found = states(serving(), [*moving(3), *[sample(steps=103, pending=3)] * 5])
    # It last moved at 6 s; the sample at 14 s is the first that is eight seconds later.
    assert found == ["serving"] * 6 + ["out"] * 2


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("steps", moving(40)),
        ("a full queue that refuses probes", [
            one._replace(pending=900, probe=probe("busy", 2.0 * n)) for n, one in
            enumerate(moving(40))
        ]),
        ("a long prefill: one step in six seconds", [
            sample(steps=101 + number // 3, pending=1) for number in range(40)
        ]),
        ("probes that time out behind a queue", [
            one._replace(probe=probe("silent", 2.0 * n)) for n, one in enumerate(moving(40))
        ]),
        ("idle, with good probes", [
            sample(probe=probe("good", 2.0 * n) if n % 3 == 0 else None) for n in range(40)
        ]),
        ("late pages while steps move", [
            one if n % 2 else LATE for n, one in enumerate(moving(40))
        ]),
        ("a request now and then on an idle engine", [
            sample(steps=101 + n // 4, pending=int(n % 4 < 2)) for n in range(40)
        ]),
        ("a wrong key", [sample(probe=probe("unfit", 2.0 * n)) for n in range(40)]),
    ],
)  # fmt: skip
def test_what_is_alive_stays_in(name: str, samples: list[Sample]):
    assert set(states(serving(), samples)) == {"serving"}


def test_an_idle_replica_whose_probes_fail_leaves_and_is_restarted_by_45_s():
    view, now, log = serving(), 0.0, {}
    started = None
    while not wants_restart(view, TIMES, now):
        now += SAMPLE_S
        ended = None
        if started is not None and now - started[0] >= started[1]:
            ended, started = probe("silent", started[0]), None
        one = LATE._replace(probe=ended)
        view = judge(view, one, TIMES, now)
        limit_s = probe_limit_s(view, one, TIMES, now)
        if limit_s and started is None:
            started = (now, limit_s)
        log.setdefault(view.state, now)
        assert now < 46
    assert log["out"] <= 12
    assert 30 <= now <= 45


def test_a_busy_replica_that_stops_leaves_and_is_restarted_by_45_s():
    view, now = serving(), 0.0
    for one in moving(3):
        now += SAMPLE_S
        view = judge(view, one, TIMES, now)
    stopped_at = now
    while view.state == "serving":
        now += SAMPLE_S
        view = judge(view, LATE, TIMES, now)
    assert now - stopped_at <= 10
    while not wants_restart(view, TIMES, now):
        now += SAMPLE_S
        view = judge(view, LATE._replace(probe=probe("silent", now - 1)), TIMES, now)
    assert 30 <= now - stopped_at <= 45


@pytest.mark.parametrize(
    ("name", "one", "state"),
    [
        ("a completion", sample(probe=probe("good", 20)), "serving"),
        ("a step", sample(steps=200, pending=3), "out"),
        ("a probe that fails", sample(probe=probe("silent", 20)), "out"),
        ("a completion while its counter stands", STALLED._replace(probe=probe("good", 20)), "out"),
        ("nobody listens: systemd starts it", REFUSED, "starting"),
        ("its unit has ended: systemd starts it", STOPPED, "starting"),
        ("another start", sample(invocation="b"), "starting"),
        ("a quarantine", sample(quarantined="a person must look"), "quarantined"),
    ],
)
def test_what_becomes_of_a_replica_that_is_out(name: str, one: Sample, state: str):
    out = after(serving(), [STALLED] * 8)[-1]
    assert out.state == "out"
    assert judge(out, one, TIMES, 24).state == state


def test_it_is_restarted_only_if_no_step_is_made_and_all_probes_fail():
    out = after(serving(), [STALLED] * 8)[-1]
    fails = judge(out, STALLED._replace(probe=probe("silent", 20)), TIMES, 24)
    assert not wants_restart(out, TIMES, 60)
    assert wants_restart(fails, TIMES, 60)
    assert not wants_restart(fails, TIMES, 30)
    stepped = judge(fails, sample(steps=200, pending=3), TIMES, 50)
    assert not wants_restart(stepped, TIMES, 60)
    answered = judge(fails, STALLED._replace(probe=probe("good", 50)), TIMES, 52)
    assert not wants_restart(answered, TIMES, 60)


def test_nonsense_takes_an_idle_replica_out_although_it_makes_steps():
    samples = [sample(steps=100 + n, probe=probe("wrong", 2.0 * n)) for n in range(1, 30)]
    views = after(serving(), samples)
    assert [one.state for one in views[:3]] == ["serving", "out", "out"]
    assert "nonsense" in views[1].reason
    assert wants_restart(views[20], TIMES, 42)


@pytest.mark.parametrize("one", [REFUSED, STOPPED, STOPPED._replace(invocation="a")])
def test_what_does_not_run_is_not_hung(one: Sample):
    views = after(serving(), [one] * 100)
    assert {view.state for view in views} == {"starting"}
    assert not any(wants_restart(view, TIMES, 1e6) for view in views)
    assert probe_limit_s(views[-1], one, TIMES, 1e6) == 0


def test_a_replica_that_never_serves_is_restarted_after_its_time():
    view = judge(first(0), sample(), TIMES, 0)
    assert judge(view, REFUSED, TIMES, 1799).state == "starting"
    late = judge(view, REFUSED, TIMES, 1800)
    assert late.state == "out" and wants_restart(late, TIMES, 1800)


def test_a_counter_that_goes_back_begins_anew():
    back = [sample(steps=5, pending=3), *[sample(steps=5, pending=3)] * 3]
    found = states(serving(), [*[STALLED] * 3, *back])
    # It would have been out at 10 s.
    assert found == ["serving"] * 7


def test_a_new_start_is_watched_from_its_own_first_completion_on():
    begun = after(serving(), [sample(invocation="b", steps=0)])[-1]
    assert (begun.state, begun.steps) == ("starting", 0)
    assert states(begun, [sample(invocation="b", steps=0, pending=5)] * 50) == ["starting"] * 50


@pytest.mark.parametrize("pause", [11, 100, 1e6])
def test_a_pause_of_the_machine_begins_all_deadlines_anew(pause: float):
    view = after(serving(), [STALLED] * 4)[-1]
    now = 8 + pause
    assert judge(view, STALLED, TIMES, now).state == "out"
    paused = judge(rebased(view, now), STALLED, TIMES, now)
    assert paused.state == "serving"
    assert states(paused, [STALLED] * 5, now) == ["serving"] * 3 + ["out"] * 2


def test_while_a_deploy_holds_the_host_nothing_is_judged():
    held = STALLED._replace(held=True)
    views = after(serving(), [STALLED] * 3 + [held] * 100)
    assert views[-1].state == "serving" and views[-1].held
    assert states(views[-1], [STALLED] * 6, 206) == ["serving"] * 4 + ["out"] * 2
    out = after(serving(), [STALLED] * 20 + [held])[-1]
    assert out.state == "out" and not wants_restart(out, TIMES, 1e6)


def test_without_a_counter_only_probes_tell_and_they_have_more_time():
    view = judge(first(0), UNREADABLE._replace(probe=probe("good", 0)), TIMES, 0)
    assert probe_limit_s(view, UNREADABLE, TIMES, 5) == TIMES.confirm_timeout_s
    fails = [UNREADABLE._replace(probe=probe("silent", 2.0 * n)) for n in range(1, 90)]
    views = after(view, fails)
    assert views[1].state == "out"
    begin = next(n for n, one in enumerate(views) if wants_restart(one, TIMES, 2 * (n + 1)))
    assert 2 * (begin + 1) >= BLIND * TIMES.restart_after_s


def test_a_counter_that_never_moves_is_no_heartbeat():
    """A metric of another version stands for ever: its completions prove that it serves."""
    view = judge(first(0), sample(steps=0), TIMES, 0)
    good = [sample(steps=0, pending=2, probe=probe("good", 2.0 * n)) for n in range(1, 30)]
    assert set(states(view, good)) == {"serving"}


def test_a_quarantine_that_is_lifted_lets_it_start():
    view = judge(serving(), sample(quarantined="hot"), TIMES, 2)
    assert (view.state, view.reason) == ("quarantined", "hot")
    assert judge(view, sample(), TIMES, 4).state == "starting"


def test_what_is_restarted_is_no_candidate_until_its_time_is_up():
    out = after(serving(), [LATE] * 3 + [STALLED] * 8)[-1]
    again = restarted(out, 40)
    views = after(again, [STOPPED, *[sample(invocation="b", scrape="refused")] * 50], 40)
    assert {view.state for view in views} == {"restarting"}
    served = judge(views[-1], sample(invocation="b", probe=probe("good", 140)), TIMES, 144)
    assert (served.state, served.crashes) == ("serving", 0)
    assert judge(views[-1], sample(invocation="b"), TIMES, 40 + 1800).state == "out"


def test_a_restart_that_fails_is_wished_again_later():
    view = not_restarted(restarted(serving(), 10), 12, "restart failed")
    fails = judge(view, LATE._replace(probe=probe("silent", 13)), TIMES, 20)
    assert (fails.state, wants_restart(fails, TIMES, 46)) == ("out", False)
    # It is blind now: its counter begins anew.
    assert wants_restart(fails, TIMES, 12 + BLIND * TIMES.restart_after_s)


def test_a_crash_loop_is_a_candidate_where_no_start_of_many_serves():
    view, now = serving(), 0
    for number in range(CRASHES + 1):
        assert not wants_restart(view, TIMES, now)
        now += 10
        view = judge(view, sample(invocation=f"start {number}", scrape="refused"), TIMES, now)
    assert wants_restart(view, TIMES, now)
    assert not wants_restart(judge(view, sample(
        invocation=view.invocation, probe=probe("good", now)), TIMES, now), TIMES, now)  # fmt: skip


numbers = st.none() | st.floats(0, 1e18) | st.integers(0, 10)
probes = st.none() | st.builds(
    probe, st.sampled_from(["good", "silent", "busy", "wrong", "unfit"]), st.floats(0, 1e5)
)
samples = st.builds(
    Sample,
    active=st.booleans(),
    invocation=st.sampled_from(["", "a", "b"]),
    scrape=st.sampled_from(["page", "late", "refused", "unreadable"]),
    steps=numbers,
    pending=numbers,
    probe=probes,
    held=st.booleans(),
    quarantined=st.sampled_from(["", "", "", "a reason"]),
)


@given(st.lists(samples, max_size=60))
def test_any_samples_give_a_state_and_no_restart_without_cause(life: list[Sample]):
    view: Any = first(0)
    for number, one in enumerate(life):
        now = SAMPLE_S * (number + 1)
        view = judge(view, one, TIMES, now)
        assert view.state in STATES
        assert (view.state == "quarantined") == bool(one.quarantined)
        if wants_restart(view, TIMES, now):
            assert not one.held and not one.quarantined
            assert view.state in ("out", "starting")


@given(st.lists(st.integers(1, 5), min_size=1, max_size=60), st.lists(probes, max_size=60))
def test_whatever_probes_say_silence_takes_nothing_out_that_makes_steps(
    steps: list[int], said: list[Any]
):
    view, now, total = serving(), 0, 100
    quiet = [one if one is None or one.kind != "wrong" else None for one in said]
    for number, more in enumerate(steps):
        now, total = now + SAMPLE_S, total + more
        one = quiet[number] if number < len(quiet) else None
        # A probe is of the time since the last sample.
        one = one and one._replace(started=now - 1)
        view = judge(view, sample(steps=total, pending=1, probe=one), TIMES, now)
        assert view.state == "serving"


WAITS = REFUSED._replace(waits="waits for b", invocation="b")


def test_a_head_that_waits_for_another_host_is_never_restarted_for_it():
    # Two hours, far beyond the time that a start may take.
    views = after(serving(), [REFUSED, *[WAITS] * 3600])
    assert {one.state for one in views} == {"starting"} and views[-1].reason == "waits for b"
    assert not any(wants_restart(one, TIMES, 2.0 * n + 2) for n, one in enumerate(views))
    # Its time to start begins when all are there.
    now = 2.0 * len(views)
    loads = after(views[-1], [REFUSED._replace(invocation="b")] * 890, now)
    assert {one.state for one in loads} == {"starting"}
    late = after(loads[-1], [REFUSED._replace(invocation="b")] * 20, now + 2.0 * len(loads))
    assert "out" in {one.state for one in late}


def test_a_group_whose_engines_die_while_they_load_is_a_crash_loop_all_the_same():
    samples: list[Sample] = []
    for start in range(CRASHES + 1):
        name = f"start-{start}"
        samples += [WAITS._replace(invocation=name), REFUSED._replace(invocation=name)]
    views = after(serving(), samples)
    assert views[-1].crashes >= CRASHES and wants_restart(views[-1], TIMES, 2.0 * len(samples))


def test_a_restart_that_meets_a_missing_host_waits_for_it():
    view = restarted(serving(), 0)
    (waiting,) = after(view, [WAITS])
    assert (waiting.state, waiting.reason) == ("starting", "waits for b")
