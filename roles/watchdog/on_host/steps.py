"""The steps against a replica that does not recover. Pure; runs on a host.

A history is a list of (seconds, step); the seconds are those of the monotonic clock.
"""

from collections import namedtuple

RESTART, RESET, REBOOT, QUARANTINE, SETTLED = "restart", "reset", "reboot", "quarantine", "settled"
HOUR_S, DAY_S = 3600, 86400
# More steps than these in an hour are a person's to decide.
STEPS_PER_HOUR = 6
# What has served for so long has recovered.
SETTLED_S = 600


class Rules(namedtuple("Rules", "restarts window_s may_reset may_reboot")):
    """How many restarts within how many seconds lead to the next step, and which are allowed."""


def next_step(history, now, rules, least=RESTART):
    """The next step, given the least that GPUs ask for; "" where the hour has had its steps."""
    taken = [step for at, step in history if now - at < HOUR_S and step != SETTLED]
    if len(taken) >= STEPS_PER_HOUR:
        return ""
    steps = _since_settled(history, now, rules.window_s)
    resets = rules.may_reset and RESET not in steps
    # A GPU that should be reset often works on: without leave to reset it, restarts are tried.
    if least == RESET and resets:
        return RESET
    if least in (RESTART, RESET) and steps.count(RESTART) < rules.restarts:
        return RESTART
    if least in (RESTART, RESET) and resets:
        return RESET
    if least != QUARANTINE and rules.may_reboot and REBOOT not in steps:
        return REBOOT
    return QUARANTINE


def _since_settled(history, now, window_s):
    steps = []
    for at, step in history:
        if step == SETTLED:
            steps = []
        elif now - at < window_s:
            steps.append(step)
    return steps


def with_step(history, now, step):
    """The history with one more step; what is older than a day, or in the future, is dropped."""
    kept = [one for one in history if 0 <= now - one[0] < DAY_S]
    return [*kept[-100:], (now, step)]


def has_settled(history, served_s):
    """Whether a replica that has served for so long is to be noted as recovered."""
    return bool(history) and history[-1][1] != SETTLED and served_s >= SETTLED_S


def may_reboot(reboots, wall, host_serves):
    """Whether the host may be rebooted: at most once a day, and no other replica of it serves.

    `reboots` are the times of earlier ones by the wall clock; one in the future counts.
    """
    return not host_serves and not any(wall - at < DAY_S for at in reboots)
