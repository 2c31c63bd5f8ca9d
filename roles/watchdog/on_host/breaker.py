"""Which replicas may leave the rotation, and which may be restarted. Pure; runs on a host."""

from collections import namedtuple

from roles.watchdog.on_host.judge import OUT, QUARANTINED, RESTARTING, SERVING, STARTING

# The state of a replica whose host cannot be asked: it counts as out.
UNKNOWN = "unknown"
# A quarantine as young as this may have the same cause as the trouble of the others.
YOUNG_S = 3600


class Member(namedtuple("Member", "host name state intends since_s")):
    """A replica of a service on any host: its state, for how long, and whether it is about to be
    restarted."""

    @property
    def rank(self):
        """Who goes first where several would."""
        return (self.host, self.name)


def is_closed(view, was_closed, others_serve):
    """Whether a replica's port takes no new connections.

    The last one that is in stays in, though it hangs. While a deploy is at work nothing is closed.
    """
    if view.state == OUT and not view.held:
        return was_closed or others_serve
    return was_closed and view.state in (OUT, STARTING, RESTARTING)


def agent_word(state, closed, held):
    """What a balancer is told of a replica: "up 100%", "down", or "" where nothing is known."""
    if closed or state in (RESTARTING, QUARANTINED):
        return "down"
    if state == SERVING or (state == OUT and not held):
        return "up 100%"
    return ""


def refusal(me, members, asked, unasked):
    """Why a replica may not be restarted now; "" where it may.

    `members` are all replicas of its service, `me` among them; `asked` and `unasked` count the
    other hosts with replicas of it.
    """
    if unasked * 2 > asked + unasked:
        return "%d of %d other hosts cannot be asked" % (unasked, asked + unasked)
    limit = max(1, len(members) // 10)
    others = [one for one in members if one.rank != me.rank]
    restarting = [one.name for one in others if one.state == RESTARTING]
    if len(restarting) >= limit:
        return "%s restarts" % ", ".join(restarting)
    if others and not any(one.state == SERVING for one in others):
        reason = _none_serves(me, others, restarting)
        if reason:
            return reason
    before = [one.name for one in others if one.intends and one.rank < me.rank]
    if len(restarting) + len(before) >= limit:
        return "%s goes first" % ", ".join(before)
    return ""


def _none_serves(me, others, restarting):
    """Why a replica waits while no other one serves: one is restarted first, and the rest follow
    only if it serves again."""
    if restarting:
        return "no replica serves, and %s restarts first" % restarting[0]
    young = [o.name for o in others if o.state == QUARANTINED and o.since_s < YOUNG_S]
    if young:
        return "no replica serves, and %s is quarantined: a person must look" % ", ".join(young)
    lower = [one.name for one in others if one.state == OUT and one.rank < me.rank]
    return "no replica serves, and %s goes first" % lower[0] if lower else ""
