"""Samples the replicas of a host; runs on a host, after probe.py."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait

from roles.watchdog.on_host.files import (
    DAMAGED,
    ask_helper,
    checked_watch,
    locked,
    read_json,
    read_replicas,
)
from roles.watchdog.on_host.judge import GOOD, LATE, PAGE, UNFIT, UNREADABLE, Sample
from roles.watchdog.on_host.saved import log
from roles.watchdog.on_host.scrape import Scrape, probe, scrape, scrape_slots
from roles.watchdog.on_host.units import read_units

# A page of metrics that takes longer counts as late.
PAGE_S = 1
KEY_S = 5


class Notes:
    """Problems by their subject; each is logged once, and once, in the words of `over`, that it is
    over."""

    def __init__(self, over):
        self.problems, self.over = {}, over

    def note(self, subject, problem):
        if problem != self.problems.get(subject, ""):
            log("%s: %s" % (subject, problem or self.over))
        if problem:
            self.problems[subject] = problem
        else:
            self.problems.pop(subject, None)


class Sight:
    """What can be seen of a host's replicas.

    `pool` runs scrapes and probes, as each may hang for its time limit.
    """

    def __init__(self, config):
        self.config, self.services = config, config["services"]
        self.engines = {kind: checked_watch(one) for kind, one in config["engines"].items()}
        self.pool = ThreadPoolExecutor(max_workers=64)
        self.replicas, self.units = {}, {}
        self.probes, self.keys, self.notes = {}, {}, Notes("can be read again")
        # By replica: the start of its unit, its engine's port, and its steps.
        self.slots, self.completions = {}, Counter()

    def samples(self):
        """A sample of each replica by name; None where systemd does not answer."""
        self.replicas = self._read_manifest()
        units = read_units(list(self.replicas)) if self.replicas else {}
        self.notes.note("systemctl", "does not answer" if units is None else "")
        if units is None:
            return None
        self.units = units
        held = any(locked(path) for path in self.config["locks"])
        pages = {
            name: self.pool.submit(self._scrape, replica, units[name].invocation)
            for name, replica in self.replicas.items()
            if units[name].active
        }
        wait(pages.values(), timeout=min(PAGE_S, self.config["sample_s"] / 2))
        return {name: self._sample(name, pages.get(name), held) for name in self.replicas}

    def start_probe(self, name, limit_s):
        """Begin a probe of a replica, if none is under way."""
        if name not in self.probes:
            replica, unit = self.replicas[name], self.units[name]
            self.probes[name] = self.pool.submit(self._probe, replica, unit.invocation, limit_s)

    def _read_manifest(self):
        """The replicas that are watched; the last good manifest counts where it is damaged."""
        path = self.config["manifest"]
        try:
            found = read_replicas(path, self.engines)
        except FileNotFoundError:
            found = {}
        except DAMAGED as error:
            self.notes.note(path, "cannot be read, the last one counts: %r" % error)
            return self.replicas
        self.notes.note(path, "")
        return {name: one for name, one in found.items() if one.service in self.services}

    def _quarantine(self, name):
        """The reason of a replica's quarantine, or ""."""
        path = os.path.join(self.config["quarantine"], name + ".json")
        try:
            return str(read_json(path)["reason"])
        except FileNotFoundError:
            return ""
        except DAMAGED:
            return "%s cannot be read" % path

    def _key(self, name, invocation):
        """The key of a replica, asked once for each of its starts; "" where there is none."""
        known = self.keys.get(name)
        if known is None or known[0] != invocation:
            command = {"do": "key", "replica": name}
            answer = ask_helper(self.config["helper"], command, KEY_S)
            key = answer.get("key")
            if not answer.get("ok") or not isinstance(key, str):
                return ""
            known = self.keys[name] = (invocation, key)
        return known[1]

    def _scrape(self, replica, invocation):
        if replica.watch is None:
            return Scrape(UNREADABLE, detail="its engine has no counter of steps")
        if replica.watch["slots"]:
            return self._scrape_slots(replica, invocation)
        key = self._key(replica.name, invocation) if replica.watch["keyed"] else ""
        return scrape(replica.port, replica.watch, key)

    def _scrape_slots(self, replica, invocation):
        """The slots of a replica's own engine. Each answer while it works counts as a step, and so
        does each completion, which is too short to be seen at work."""
        known, port, steps = self.slots.get(replica.name, ("", 0, 0))
        if known != invocation:
            port, steps = 0, 0
        port = port or self._own_port(replica.name)
        if not port:
            return Scrape(UNREADABLE, detail="slots: its engine is not found")
        found = scrape_slots(port, replica.watch["path"])
        if found.outcome == PAGE and found.pending:
            steps += 1
        # It may have been started anew, at another port.
        port = 0 if found.outcome == UNREADABLE else port
        self.slots[replica.name] = (invocation, port, steps)
        if found.outcome != PAGE:
            return found
        return found._replace(steps=steps + self.completions[replica.name])

    def _own_port(self, name):
        """The port of a replica's own engine; 0 where there is none."""
        command = {"do": "port", "replica": name}
        answer = ask_helper(self.config["helper"], command, KEY_S)
        port = answer.get("port")
        return port if answer.get("ok") and type(port) is int and 0 < port < 65536 else 0

    def _probe(self, replica, invocation, limit_s):
        key = self._key(replica.name, invocation)
        tokens = self.services[replica.service]["probe_tokens"]
        found = probe(replica.port, replica.model, key, limit_s, tokens, replica.task)
        if found.kind == UNFIT:
            # Perhaps its key has changed.
            self.keys.pop(replica.name, None)
        return found

    def _sample(self, name, page, held):
        found = page.result() if page is not None and page.done() else Scrape(LATE)
        if found.outcome != LATE:
            self.notes.note("the metrics of " + name, found.detail)
        probed = self.probes.get(name)
        probed = self.probes.pop(name).result() if probed is not None and probed.done() else None
        if probed is not None:
            why = probed.detail if probed.kind == UNFIT else ""
            self.notes.note("the completions of " + name, why)
            self.completions[name] += probed.kind == GOOD
        unit = self.units[name]
        return Sample(
            *(unit.active, unit.invocation, found.outcome, found.steps, found.pending),
            *(probed, held, self._quarantine(name)),
            # Only a replica over several hosts has others to wait for.
            unit.waits if self.replicas[name].group else "",
        )
