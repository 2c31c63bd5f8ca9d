"""The metrics of the watchdog in the node exporter's textfile form. Pure; runs on a host."""

from roles.watchdog.on_host.judge import STATES

REPLICA = ("replica", "service")
# By name: type, unit, labels and meaning; docs/healing.md lists them.
METRICS = {
    "llm_watchdog_replica_state": (
        *("gauge", "0 or 1", (*REPLICA, "state")),
        "1 for the state that a replica is in",
    ),
    "llm_watchdog_replica_in_rotation": (
        *("gauge", "0 or 1", REPLICA),
        "1 while its port takes new connections",
    ),
    "llm_watchdog_replica_proof_age_seconds": (
        *("gauge", "seconds", REPLICA),
        "seconds since its last step or completion",
    ),
    "llm_watchdog_replica_pending_requests": (
        *("gauge", "requests", REPLICA),
        "requests that run or wait",
    ),
    "llm_watchdog_replica_steps": (
        *("gauge", "steps", REPLICA),
        "step counter of its engine, as last read",
    ),
    "llm_watchdog_actions_total": (
        *("counter", "actions", ("replica", "action")),
        "what the watchdog did since it started",
    ),
    "llm_watchdog_breaker_open": (
        *("gauge", "0 or 1", ("service",)),
        "1 while a restart waits for other replicas",
    ),
    "llm_watchdog_held": (*("gauge", "0 or 1", ()), "1 while a deploy holds the host"),
    "llm_watchdog_unreadable": (*("gauge", "1", ("what",)), "1 for what the watchdog cannot read"),
}


def exposition(rows):
    """The text of (name, labels, value) rows, grouped by name; a value of None is left out."""
    lines = []
    for name, (kind, _, _, meaning) in METRICS.items():
        lines += ["# HELP %s %s" % (name, meaning), "# TYPE %s %s" % (name, kind)]
        lines += [
            "%s%s %.15g" % (name, _labels(labels), value)
            for one, labels, value in rows
            if one == name and value is not None
        ]
    return "\n".join(lines) + "\n"


def _labels(labels):
    if not labels:
        return ""
    pairs = ['%s="%s"' % (name, _escaped(value)) for name, value in labels.items()]
    return "{%s}" % ",".join(pairs)


def _escaped(value):
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def replica_rows(replica, view, closed, now):
    """The rows of one replica."""
    own = {"replica": replica.name, "service": replica.service}
    rows = [
        ("llm_watchdog_replica_state", dict(own, state=state), int(view.state == state))
        for state in STATES
    ]
    return [
        *rows,
        ("llm_watchdog_replica_in_rotation", own, int(not closed)),
        ("llm_watchdog_replica_proof_age_seconds", own, now - view.proof_at),
        ("llm_watchdog_replica_pending_requests", own, view.pending),
        ("llm_watchdog_replica_steps", own, view.steps),
    ]
