"""The watchdog of a GPU host: judges its replicas, and acts through the root helper.

It runs as a user without rights. The argument is its configuration, which a deploy writes.
"""

import os
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from roles.host.probe import plain
from roles.watchdog.on_host.agent import Board, Peer, ask_peers, listen, serve, state_line
from roles.watchdog.on_host.breaker import (
    UNKNOWN,
    Member,
    agent_word,
    is_closed,
    others_of,
    refusal,
    serves,
)
from roles.watchdog.on_host.exposition import exposition, replica_rows
from roles.watchdog.on_host.files import ask_helper, read_json, write_whole
from roles.watchdog.on_host.judge import (
    CRASHES,
    OUT,
    QUARANTINED,
    RESTARTING,
    SERVING,
    Times,
    first,
    judge,
    not_restarted,
    probe_limit_s,
    rebased,
    restarted,
    wants_restart,
)
from roles.watchdog.on_host.saved import Saved, log
from roles.watchdog.on_host.sight import Notes, Sight
from roles.watchdog.on_host.steps import (
    QUARANTINE,
    REBOOT,
    RESET,
    RESTART,
    SETTLED,
    Rules,
    has_settled,
    may_reboot,
    next_step,
    with_step,
)

# A sample that is later than this says that the machine or its clock stood still.
JUMP_S = 10
# Elements of the set of closed ports live for 60 s; they are renewed long before.
RENEW_S = 20
QUICK_S, LONG_S = 5, 60
# Evidence is kept of so many starts in a row that did not serve.
DEATHS = 3
NO_STEP = "it waits for nothing any more"


def notify(text):
    """Tell systemd that the loop goes on."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.connect("\0" + address[1:] if address[0] == "@" else address)
            connection.send(text.encode())


class Watchdog:
    """What is known of one host's replicas, and what is done about them.

    `closed` has when a port was last closed, by replica; `jobs` what the helper is at; `intends`
    who is about to be restarted, `waits` why one is not; `advice` is the least step that the GPUs
    of a replica ask for, with its reason; it is `urgent` for one that died.
    """

    def __init__(self, config):
        self.config, self.host, self.services = config, config["host"], config["services"]
        self.peers = [Peer(**one) for one in config["peers"]]
        self.saved, self.sight, self.board = Saved(config["state"]), Sight(config), Board()
        self.saved.load()
        # What the helper does, and writes to disks that may hang, wait for nobody's probe.
        self.pool = ThreadPoolExecutor(max_workers=32)
        self.views, self.closed, self.jobs = {}, {}, {}
        self.urgent, self.advice, self.intends, self.waits = set(), {}, set(), Notes(NO_STEP)
        self.actions, self.last, self.writing = Counter(), None, None

    def tick(self):
        """Take one sample of everything, and act on it."""
        samples = self.sight.samples()
        if samples is None:
            # Nothing is judged, and all deadlines begin anew.
            self.last = None
            return
        now = time.monotonic()
        late = self.last is None or now - self.last > self.config["sample_s"] + JUMP_S
        self.last = now
        for name in set(self.views) - set(samples):
            self.forget(name)
        for name, sample in samples.items():
            self.look(name, sample, now, late)
        self.finish_jobs(now)
        self.decide(now)
        for name, sample in samples.items():
            limit_s = probe_limit_s(self.views[name], sample, self.times(name), now)
            if limit_s:
                self.sight.start_probe(name, limit_s)
        self.publish(now)

    def service(self, name):
        return self.sight.replicas[name].service

    def times(self, name):
        settings = self.services[self.service(name)]
        return Times(**{field: settings[field] for field in Times._fields})

    def forget(self, name):
        """Forget a replica that left the manifest."""
        del self.views[name]
        self.closed.pop(name, None)
        self.saved.states.pop(name, None)
        self.advice.pop(name, None)
        self.waits.note(name, "")
        for subject in ("metrics", "completions", "port"):
            self.sight.notes.note("the %s of %s" % (subject, name), "")

    def look(self, name, sample, now, late):
        """Judge one replica, and log what changes."""
        before = self.views.get(name)
        if before is None:
            before = self.begin(name, now)
        elif late:
            before = rebased(before, now)
        view = self.views[name] = judge(before, sample, self.times(name), now)
        if sample.held and view.invocation != before.invocation:
            # What a deploy has started is its to prove, by balancers, too.
            self.open(name)
        if view.state != before.state:
            log("%s: %s -> %s (%s)" % (name, before.state, view.state, view.reason))
        begun = before.invocation and view.invocation != before.invocation
        if begun:
            self.advice.pop(name, None)
        # Nobody asked it to start anew: it died.
        died = begun and not view.held and before.state != RESTARTING
        died = died and view.crashes < DEATHS
        if died or (view.state == OUT and before.state != OUT):
            (self.urgent.add if died else self.urgent.discard)(name)
            self.start_job(name, {"do": "evidence", "replica": name})
        if view.held != before.held:
            log("%s: a deploy %s the host" % (name, "holds" if view.held else "has left"))

    def begin(self, name, now):
        """The first view of a replica, with what an earlier watchdog knew."""
        state, invocation, counts = self.saved.states.get(name, ("", "", False))
        current = self.sight.units[name].invocation
        if state in (SERVING, OUT, RESTARTING) and invocation == current:
            return first(now, current, state, counts)
        return first(now, current)

    # Other replicas.

    def members(self, now):
        """The replicas of this host as (service, member)."""
        return [
            (
                self.service(name),
                Member(
                    *(self.host, name, view.state, name in self.intends, now - view.since),
                    self.sight.replicas[name].group,
                ),
            )
            for name, view in self.views.items()
        ]

    def peers_of(self, services):
        return [peer for peer in self.peers if services & set(peer.replicas.values())]

    def members_of(self, service, answers, now):
        """All members of a service, on hosts that gave an answer and on those that gave none."""
        found = [*self.members(now)]
        for peer in self.peers_of({service}):
            found += answers.get(peer.host) or [
                (own, Member(peer.host, name, UNKNOWN, False, 0))
                for name, own in peer.replicas.items()
            ]
        return [member for own, member in found if own == service]

    # What is decided.

    def decide(self, now):
        """Close and open ports, and restart what does not recover."""
        wishes = [name for name in self.views if self.wishes(name, now)]
        announced, self.intends = self.intends, set(wishes)
        sick = [n for n, view in self.views.items() if view.state == OUT and n not in self.closed]
        # Who else decides at this moment must see it before this host asks.
        self.announce(now)
        peers = self.peers_of({self.service(name) for name in (*wishes, *sick)})
        answers = ask_peers(peers, self.config["agent"]["port"]) if peers else {}
        for name in self.views:
            self.close_or_open(name, answers, now)
            if name not in wishes:
                self.waits.note(name, "")
        for name in sorted(wishes):
            # Others must have seen the intention: it was announced one sample earlier.
            if name in announced and name not in self.jobs:
                self.restart(name, answers, now)

    def wishes(self, name, now):
        """Whether something is to be done about a replica: it does not recover, or its GPU is gone
        for it."""
        view, step = self.views[name], self.advice.get(name, ("", ""))[0]
        if name in self.urgent and step in (REBOOT, QUARANTINE) and not view.held:
            return view.state not in (RESTARTING, QUARANTINED)
        return wants_restart(view, self.times(name), now)

    def close_or_open(self, name, answers, now):
        """Have a replica's port take new connections, or none."""
        members = self.members_of(self.service(name), answers, now)
        me = next(one for one in members if (one.host, one.name) == (self.host, name))
        serve = serves(others_of(me, members))
        was_closed = name in self.closed
        if not is_closed(self.views[name], was_closed, serve):
            self.open(name)
        elif not was_closed or now - self.closed[name] >= RENEW_S:
            answer = self.helper({"do": "close", "replica": name}, QUICK_S)
            error = "" if answer.get("ok") else str(answer.get("error", "no answer"))
            self.sight.notes.note("the port of " + name, error)
            # Balancers that ask hear of it in any case; what failed is tried again.
            self.closed[name] = now - RENEW_S if error else now
            if not was_closed:
                log("%s: leaves the rotation" % name)
                self.actions[name, "close"] += 1

    def open(self, name):
        if self.closed.pop(name, None) is not None:
            answer = self.helper({"do": "open", "replica": name}, QUICK_S)
            log("%s: back in the rotation: %s" % (name, answer.get("error", "done")))
            self.actions[name, "open"] += 1

    def restart(self, name, answers, now):
        """Take the next step against a replica, where the breaker allows it."""
        members = self.members_of(self.service(name), answers, now)
        me = next(one for one in members if (one.host, one.name) == (self.host, name))
        hosts = [peer.host for peer in self.peers_of({self.service(name)})]
        unasked = sum(answers.get(host) is None for host in hosts)
        reason = refusal(me, members, len(hosts) - unasked, unasked)
        step = "" if reason else self.next_step(name, now)
        if not step:
            why = reason or "it had its steps of this hour: a person must look"
            self.waits.note(name, "its restart waits: " + why)
            return
        why = self.advice.pop(name, ("", ""))[1] or self.views[name].reason
        log("%s: %s (%s)" % (name, step, why))
        history = self.saved.histories.get(name, [])
        self.saved.histories[name] = with_step(history, now, step)
        if step == REBOOT:
            self.saved.reboots = [*self.saved.reboots[-9:], time.time()]
        self.views[name] = restarted(self.views[name], now)
        command = {"do": step, "replica": name}
        self.start_job(name, dict(command, reason=why) if step == QUARANTINE else command)

    def next_step(self, name, now):
        settings = self.services[self.service(name)]
        serves = any(one.state == SERVING for one in self.views.values())
        wall = time.time()
        rules = Rules(
            0 if self.views[name].crashes >= CRASHES else settings["restarts"],
            settings["restart_window_s"],
            self.config["may_reset"],
            self.config["may_reboot"] and may_reboot(self.saved.reboots, wall, serves),
        )
        advised = self.advice.get(name, ("", ""))[0]
        least = advised if advised in (RESET, REBOOT, QUARANTINE) else RESTART
        return next_step(self.saved.histories.get(name, []), now, rules, least)

    # What is done.

    def helper(self, command, timeout_s):
        return ask_helper(self.config["helper"], command, timeout_s)

    def start_job(self, name, command):
        """Let the helper do something that takes long; one thing at a time for a replica."""
        if name in self.jobs:
            return

        saved = self.saved.snapshot()

        def job():
            if command["do"] == REBOOT:
                # Otherwise it would reboot again, and again.
                self.saved.write(saved)
            return self.helper(command, LONG_S)

        self.actions[name, command["do"]] += 1
        self.jobs[name] = (command["do"], self.pool.submit(job))

    def finish_jobs(self, now):
        for name, (what, future) in list(self.jobs.items()):
            if not future.done():
                continue
            del self.jobs[name]
            answer = {"error": str(future.exception())} if future.exception() else future.result()
            good = bool(answer.get("ok"))
            log("%s: %s: %s" % (name, what, answer.get("done" if good else "error", "done")))
            if good and what == "evidence" and answer.get("reason") and name in self.views:
                self.advice[name] = (answer.get("step"), plain(answer["reason"]))
                log("%s: its GPUs ask for: %s (%s)" % (name, *self.advice[name]))
            if not good and what != "evidence" and name in self.views:
                self.views[name] = not_restarted(self.views[name], now, what + " failed")

    # What is told.

    def announce(self, now):
        """Answer balancers and other hosts from now on with what is known."""
        self.board.words = {
            name: agent_word(view.state, name in self.closed, view.held)
            for name, view in self.views.items()
        }
        details = {name: self.details(name, view, now) for name, view in self.views.items()}
        self.board.state = state_line(self.host, self.members(now), details)

    def details(self, name, view, now):
        """What a person wants to know of a replica."""
        return {
            "reason": view.reason,
            "pending": view.pending,
            "proof_age_s": round(now - view.proof_at, 1),
            "closed": name in self.closed,
            "held": view.held,
            "waits": self.waits.problems.get(name, ""),
        }

    def publish(self, now):
        """Answer, and write to disk, what is known."""
        self.announce(now)
        for name, view in self.views.items():
            self.saved.states[name] = (view.state, view.invocation, view.counts)
            history = self.saved.histories.get(name, [])
            if view.state == SERVING and has_settled(history, now - view.since):
                self.saved.histories[name] = with_step(history, now, SETTLED)
        if self.writing is None or self.writing.done():
            # A disk that hangs must not stop the loop.
            texts = exposition(self.rows(now)), self.saved.snapshot()
            self.writing = self.pool.submit(self.write, *texts)

    def rows(self, now):
        rows = [
            row
            for name, view in self.views.items()
            for row in replica_rows(self.sight.replicas[name], view, name in self.closed, now)
        ]
        rows += [
            ("llm_watchdog_actions_total", {"replica": name, "action": action}, count)
            for (name, action), count in sorted(self.actions.items())
        ]
        waiting = {self.service(name) for name in self.waits.problems}
        rows += [
            ("llm_watchdog_breaker_open", {"service": service}, int(service in waiting))
            for service in sorted(self.services)
        ]
        problems = sorted(self.sight.notes.problems)
        rows += [("llm_watchdog_unreadable", {"what": what}, 1) for what in problems]
        held = any(view.held for view in self.views.values())
        return [*rows, ("llm_watchdog_held", {}, int(held))]

    def write(self, metrics, saved):
        try:
            write_whole(self.config["metrics"], metrics)
            self.saved.write(saved)
        except OSError as error:
            log("metrics and counts cannot be written: %s" % error)


def watch(path):
    """Watch for ever."""
    config = read_json(path)
    watchdog = Watchdog(config)
    server = listen(config["agent"]["address"], config["agent"]["port"])
    threading.Thread(target=serve, args=(server, watchdog.board), daemon=True).start()
    notify("READY=1")
    while True:
        begun = time.monotonic()
        watchdog.tick()
        notify("WATCHDOG=1")
        time.sleep(max(0.0, begun + config["sample_s"] - time.monotonic()))
