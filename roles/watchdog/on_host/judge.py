"""Judges whether a replica works, by what is sampled of it. Pure; runs on a host.

A replica is alive while the step counter of its engine moves. A replica without requests proves
itself by a completion. All times are seconds of the monotonic clock.
"""

from collections import namedtuple

STARTING, SERVING, OUT = "starting", "serving", "out"
RESTARTING, QUARANTINED = "restarting", "quarantined"
STATES = (STARTING, SERVING, OUT, RESTARTING, QUARANTINED)
# What a scrape of the metrics gave: a page, no answer in time, no listener, or no page of metrics.
PAGE, LATE, REFUSED, UNREADABLE = "page", "late", "refused", "unreadable"
# What a probe gave: a completion, no answer, "too busy" (503, 429), nonsense or an error of the
# engine, or an answer that says nothing of its health (a wrong key, an unknown model).
GOOD, SILENT, BUSY, WRONG, UNFIT = "good", "silent", "busy", "wrong", "unfit"
# Starts in a row by systemd, none of which served, that make a crash loop. The unit waits 5 s
# before each, and memory that is freed late or a network share needs some of them.
CRASHES = 10
# Without a counter of steps a full queue looks like a hang: such a replica is restarted so many
# times later, and its probes have the long limit.
BLIND = 4


class Times(
    namedtuple(
        "Times",
        "stall_timeout_s idle_probe_s probe_timeout_s failed_probes confirm_timeout_s "
        "restart_after_s start_timeout_s",
    )
):
    """The times of a service, see roles/watchdog/settings.py; `start_timeout_s` is launch's."""


class Probe(namedtuple("Probe", "kind started detail")):
    """A finished probe: what it gave, when it was started, and its words."""


class Sample(
    namedtuple(
        "Sample",
        "active invocation scrape steps pending probe held quarantined waits",
        defaults=(True, "", PAGE, None, None, None, False, "", ""),
    )
):
    """What is seen of a replica at one time.

    `active` says whether its unit runs, `invocation` names this start of the unit. `steps` and
    `pending` are None where they could not be read. `held`: a deploy holds the host. `quarantined`
    is the reason of a quarantine, or "". `waits` says whom of its other hosts it waits for, or "".
    """


class View(
    namedtuple(
        "View",
        "state since invocation moved_at proof_at steps pending busy_since counts failed "
        "failing_since wrong detail sick_since confirmed crashes held reason",
        defaults=(None, None, None, False, 0, None, False, "", None, 0, 0, False, ""),
    )
):
    """What is known of a replica.

    `moved_at` is when its counter last moved, `proof_at` when it last proved itself by a step or a
    completion. `busy_since` is since when requests run or wait, None while none does. `counts` says
    whether its counter has moved since its start, which makes it a heartbeat. `failed` are failed
    probes in a row since `failing_since`, `wrong` says that it answers nonsense,
    `detail` is what the last one gave. While it is out,
    `sick_since` is its last sign of life and `confirmed` the failed probes since then. `crashes`
    are starts in a row that did not serve.
    """


def first(now, invocation="", state=STARTING, counts=False):
    """The view of a replica that is seen for the first time; `state` and `counts` are what an
    earlier watchdog knew of this invocation."""
    view = View(state, now, invocation, moved_at=now, proof_at=now, counts=counts)
    return view._replace(sick_since=now, reason="as it was before") if state == OUT else view


def rebased(view, now):
    """A view whose deadlines all start now: the clock jumped, or a deploy was at work."""
    return view._replace(
        since=now if view.state in (STARTING, RESTARTING) else view.since,
        moved_at=now,
        proof_at=now,
        busy_since=None if view.busy_since is None else now,
        failed=0,
        failing_since=None,
        sick_since=None if view.sick_since is None else now,
        confirmed=0,
    )


def judge(view, sample, times, now):
    """The view after one more sample."""
    if sample.quarantined:
        return _to(view, QUARANTINED, now, sample.quarantined)
    if view.state == QUARANTINED:
        view = first(now)
    if sample.invocation and sample.invocation != view.invocation:
        view = _begun(view, sample, now)
    if sample.held or view.held:
        view = rebased(view, now)._replace(held=sample.held)
    if sample.held:
        return view._replace(steps=view.steps if sample.steps is None else sample.steps)
    if sample.waits:
        # It starts when the others are there, however long that takes; nothing is wrong with it.
        view = _to(view._replace(state=""), STARTING, now, sample.waits)
        return rebased(view, now)._replace(busy_since=None, pending=None, counts=False)
    if not sample.active or sample.scrape == REFUSED:
        return _not_listening(view, sample, times, now)
    view = _with_page(view, sample, now)
    view = _with_probe(view, sample.probe, times, now)
    return _decided(view, times, now)


def _to(view, state, now, reason=""):
    if state == view.state:
        return view
    return view._replace(state=state, since=now, reason=reason)


def _begun(view, sample, now):
    """A new start of the unit; its counters begin anew."""
    known = bool(view.invocation)
    unserved = known and view.state in (STARTING, RESTARTING)
    state = RESTARTING if view.state == RESTARTING else STARTING
    crashes = view.crashes + 1 if unserved and not sample.held else view.crashes
    return first(now, sample.invocation)._replace(
        # Its deadline is that of the restart: systemd may start it several times.
        state=state,
        since=view.since if state == RESTARTING else now,
        crashes=crashes,
        held=view.held,
    )


def _not_listening(view, sample, times, now):
    """A unit that has ended, or does not listen yet, is systemd's to start."""
    if view.state in (SERVING, OUT):
        why = "takes no connection" if sample.active else "its unit does not run"
        # It has to prove itself again.
        view = _to(view, STARTING, now, why)._replace(sick_since=None, counts=False)
    return _decided(view._replace(busy_since=None, pending=None), times, now)


def _with_page(view, sample, now):
    """The view with what the page of metrics says."""
    pending = view.pending if sample.scrape == LATE else sample.pending
    began = now if view.busy_since is None else view.busy_since
    view = view._replace(pending=pending, busy_since=began if pending else None)
    if sample.steps is None:
        # A page without its counter is no heartbeat.
        return view if sample.scrape == LATE else view._replace(counts=False)
    steps, view = view.steps, view._replace(steps=sample.steps)
    if steps is None or sample.steps == steps:
        return view
    if sample.steps < steps:
        return view._replace(moved_at=now)
    view = view._replace(moved_at=now, counts=True)
    # What answers nonsense makes steps, too.
    if view.wrong:
        return view
    sick_since = None if view.sick_since is None else now
    return view._replace(proof_at=now, failed=0, failing_since=None, sick_since=sick_since)


def _with_probe(view, probe, times, now):
    """The view with the outcome of a probe."""
    if probe is None or probe.kind == UNFIT:
        return view
    if probe.kind == GOOD:
        sick_since = None if view.sick_since is None else now
        view = view._replace(
            proof_at=now, failed=0, failing_since=None, wrong=False, confirmed=0,
            sick_since=sick_since,
        )  # fmt: skip
        if view.state == OUT and stalled(view, times, now):
            return view._replace(reason="it answers, but its counter stands while requests wait")
        return _serving(view, now, "a completion")
    # A full queue and a long prompt keep a probe waiting: what has made a step since is alive.
    if probe.kind != WRONG and view.proof_at >= probe.started:
        return view
    since = probe.started if view.failing_since is None else view.failing_since
    return view._replace(
        failed=view.failed + 1,
        failing_since=since,
        wrong=view.wrong or probe.kind == WRONG,
        confirmed=view.confirmed + 1 if view.state == OUT else 0,
        detail=probe.detail,
    )


def _serving(view, now, reason):
    view = _to(view, SERVING, now, reason)
    return view._replace(sick_since=None, confirmed=0, crashes=0)


def stalled(view, times, now):
    """Whether the counter stands although requests run or wait."""
    if view.busy_since is None or not view.counts:
        return False
    return now - max(view.moved_at, view.busy_since) >= times.stall_timeout_s


def _decided(view, times, now):
    """The view with the state that follows from it."""
    if view.state in (STARTING, RESTARTING):
        if view.counts and not view.wrong:
            return _serving(view, now, "a step")
        if now - view.since >= times.start_timeout_s:
            why = "does not serve within %d s" % times.start_timeout_s
            # It had its time: no more probes are waited for.
            out = _to(view, OUT, now, why)
            return out._replace(sick_since=view.since, confirmed=1, counts=True)
    if view.state != SERVING:
        return view
    if stalled(view, times, now):
        since = max(view.moved_at, view.busy_since)
        why = "no step for %.0f s, %d requests run or wait" % (now - since, view.pending)
        return _to(view, OUT, now, why)._replace(sick_since=since, confirmed=0)
    if view.failed >= times.failed_probes:
        since = view.failing_since if view.wrong else view.proof_at
        words = "answers nonsense" if view.wrong else "no completion"
        why = "%s, %d probes in a row: %s" % (words, view.failed, view.detail)
        return _to(view, OUT, now, why)._replace(sick_since=since, confirmed=0)
    return view


def probe_limit_s(view, sample, times, now):
    """The time limit of the probe that a replica needs now; 0 where it needs none."""
    if sample.held or sample.quarantined or not sample.active or sample.scrape == REFUSED:
        return 0
    if view.state != SERVING:
        return times.confirm_timeout_s
    if view.busy_since is not None and view.counts:
        return 0
    # A page that does not come is no sign of idleness.
    due = sample.scrape == LATE or view.failed or now - view.proof_at >= times.idle_probe_s
    limit_s = times.probe_timeout_s if view.counts else times.confirm_timeout_s
    return limit_s if due else 0


def wants_restart(view, times, now):
    """Whether a replica is to be restarted: no step and no completion for long enough."""
    if view.held:
        return False
    if view.state == STARTING and view.crashes >= CRASHES:
        return True
    if view.state != OUT or not view.confirmed:
        return False
    after_s = times.restart_after_s * (1 if view.counts or view.wrong else BLIND)
    return now - view.sick_since >= after_s


def restarted(view, now):
    """The view of a replica whose restart begins."""
    return _to(view, RESTARTING, now, "restarted by the watchdog")._replace(
        sick_since=None, confirmed=0, failed=0, failing_since=None, wrong=False, counts=False,
        busy_since=None, moved_at=now, proof_at=now,
    )  # fmt: skip


def not_restarted(view, now, why):
    """The view of a replica that could not be restarted; its next deadline begins now."""
    return _to(view, OUT, now, why)._replace(sick_since=now, confirmed=0)
