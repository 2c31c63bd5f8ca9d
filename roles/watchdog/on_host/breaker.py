"""Which replicas may leave the rotation, and which may be restarted. Pure; runs on a host."""

from collections import namedtuple

from roles.watchdog.on_host.judge import OUT, QUARANTINED, RESTARTING, SERVING, STARTING

# The state of a replica whose host cannot be asked: it counts as out.
UNKNOWN = "unknown"
# A quarantine as young as this may have the same cause as the trouble of the others.
YOUNG_S = 3600


class Member(namedtuple("Member", "host name state intends since_s group", defaults=("",))):
    """A replica of a service on any host: its state, for how long, and whether it is about to be
    restarted. Those with the same `group` are parts of one replica."""

    @property
    def rank(self):
        """Who goes first where several would."""
        return (self.host, self.name)

    @property
    def whole(self):
        """What the replica is that this is, or is a part of."""
        return ("", self.group) if self.group else self.rank


def others_of(me, members):
    """The members that are no part of the same replica."""
    return [one for one in members if one.whole != me.whole]


def serves(members):
    """Whether any replica serves: all parts of it do."""
    broken = {one.whole for one in members if one.state != SERVING}
    return any(one.whole not in broken for one in members)


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

    `members` are all replicas of its service, `me` among them; parts of one count once. `asked` and
    `unasked` count the other hosts with replicas of it.
    """
    if unasked * 2 > asked + unasked:
        return "%d of %d other hosts cannot be asked" % (unasked, asked + unasked)
    limit = max(1, len({one.whole for one in members}) // 10)
    others = others_of(me, members)
    restarting = wholes(one for one in others if one.state == RESTARTING)
    if len(restarting) >= limit:
        return "%s restarts" % ", ".join(restarting)
    if others and not serves(others):
        reason = _none_serves(me, others, restarting)
        if reason:
            return reason
    before = wholes(one for one in others if one.intends and one.whole < me.whole)
    if len(restarting) + len(before) >= limit:
        return "%s goes first" % ", ".join(before)
    return ""


def wholes(members):
    """The names of the replicas that these are, or are parts of, each once."""
    return list(dict.fromkeys(one.group or one.name for one in members))


def _none_serves(me, others, restarting):
    """Why a replica waits while no other one serves: one is restarted first, and the rest follow
    only if it serves again."""
    if restarting:
        return "no replica serves, and %s restarts first" % restarting[0]
    young = [o.name for o in others if o.state == QUARANTINED and o.since_s < YOUNG_S]
    if young:
        return "no replica serves, and %s is quarantined: a person must look" % ", ".join(young)
    lower = wholes(one for one in others if one.state == OUT and one.whole < me.whole)
    return "no replica serves, and %s goes first" % lower[0] if lower else ""
