"""The main process of a part of a replica over several hosts: `python3 -I part.py` in the replica's
folder, bundled with `wire.py`, by the host's own Python and its standard library.

The parts meet at the head (rank 0), prove to each other that they know the group's secret, and are
started in the order of their ranks, each an engine as a child of this process. They end together:
whichever part ends, with whatever status, or is not heard for some seconds, the engines of all are
killed. Each unit is then started anew, and the parts meet again.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

from roles.launch.wire import HANDSHAKE_S, Wire, admit, join

BEAT_S, SILENT_S = 2, 10
RETRY_S = 1
STARTED_S, KILLED_S, IP_S = 60, 5, 5
ACCEPT_S = 0.2
# What a graceful end takes beyond the engine's own drain.
MARGIN_S = 10
MOST_CONNECTIONS = 64


class GroupError(Exception):
    """Why this part ends; `status` is its exit status."""

    def __init__(self, why, status=1):
        super().__init__(why)
        self.status = status


def log(text):
    print("part: %s" % text, flush=True)


def tell_systemd(text):
    """Show a text as the unit's status."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.connect("\0" + address[1:] if address[0] == "@" else address)
            one.send(("STATUS=" + text).encode())


def local_address(address, peer):
    """The host's own address by which it reaches a peer: that of the plan, where an interface has
    it."""
    if interface_of(address):
        return address
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, 9))
        return probe.getsockname()[0]


def interface_of(address):
    """The name of the interface that has an address, "" where none has it or nothing says so."""
    command = ["ip", "-o", "addr", "show"]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=IP_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    for line in done.stdout.decode(errors="replace").splitlines():
        # "2: eth0    inet 192.0.2.1/24 …"
        words = line.split()
        if len(words) > 3 and words[3].partition("/")[0] == address:
            return words[1].partition("@")[0]
    return ""


class Part:
    """This host's part of the replica.

    `events` come from the threads that wait for other parts. `heard` is when the last message of
    each other part came.
    """

    def __init__(self, config, secret):
        self.config, self.secret = config, secret
        self.rank, self.hosts = config["rank"], config["hosts"]
        self.addresses, self.size = config["addresses"], len(config["addresses"])
        # Its put may be called by a signal's handler.
        self.events = queue.SimpleQueue()
        self.wires, self.heard = {}, {}
        self.engine, self.leaving, self.deadline = None, False, None
        self.waits, self.beat_at = "", 0

    # What all parts do.

    def run(self):
        signal.signal(signal.SIGTERM, lambda *_: self.events.put(("term", self.rank, (None, {}))))
        try:
            (self.lead if self.rank == 0 else self.follow)()
        except GroupError as end:
            return self.end(end)
        except (OSError, RuntimeError) as error:
            # RuntimeError: no thread can be started.
            return self.end(GroupError("its host refuses: %s" % error))

    def end(self, why):
        """Tell the others why this part ends, and end; its exit status."""
        log(why)
        for wire in list(self.wires.values()):
            with contextlib.suppress(OSError):
                wire.send(end=str(why))
        self.kill()
        for wire in list(self.wires.values()):
            wire.close()
        return why.status

    def kill(self):
        """Kill the engine; what left its process group ends with the unit."""
        if self.engine is not None:
            with contextlib.suppress(OSError):
                os.killpg(self.engine.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.engine.wait(KILLED_S)

    def start_engine(self):
        environment = dict(os.environ)
        environment.pop("NOTIFY_SOCKET", None)
        peer = self.addresses[1 if self.rank == 0 else 0]
        own = local_address(self.addresses[self.rank], peer)
        interface = interface_of(own)
        for name in self.config["address_variables"]:
            environment.setdefault(name, own)
        for name, form in self.config["interface_variables"].items() if interface else ():
            environment.setdefault(name, form.replace("{}", interface))
        self.engine = subprocess.Popen(
            ["/bin/sh", self.config["engine"]], env=environment, start_new_session=True
        )
        log("rank %d of %d starts at %s (%s)" % (self.rank, self.size, own, interface or "?"))

    def waits_for(self, ranks):
        names = ", ".join(self.hosts[rank] for rank in sorted(ranks))
        if names != self.waits:
            self.waits = names
            log("waits for " + names if names else "all parts are there")
            tell_systemd("waits for " + names if names else "all parts are there")

    def read(self, rank, wire):
        """Hand on the messages of another part, until its connection ends."""
        try:
            while True:
                self.events.put(("message", rank, (wire, wire.receive())))
        except (OSError, ValueError, RecursionError) as error:
            self.events.put(("lost", rank, (wire, str(error))))

    def listen_to(self, rank, wire):
        wire.proved()
        self.wires[rank], self.heard[rank] = wire, time.monotonic()
        threading.Thread(target=self.read, args=(rank, wire), daemon=True).start()

    def next_event(self, timeout_s):
        """What happened: its kind ("" for nothing), whose it is, and its connection with the
        message from there."""
        try:
            return self.events.get(timeout=timeout_s)
        except queue.Empty:
            return "", self.rank, (None, {})

    def watch(self):
        """Stay until anything of the group ends; always ends by a GroupError."""
        while True:
            self.look()

    def look(self):
        """Send a beat when it is due, and take one event; whose message came, and the message."""
        for rank in self.beat():
            raise GroupError("%s is lost" % self.hosts[rank])
        message = None, {}
        kind, rank, value = self.next_event(0.25)
        if kind == "deaf":
            raise GroupError("it takes no members any more")
        elif kind == "term":
            self.leave("this part is stopped", True)
        elif kind == "joined" and value[0] is not None:
            value[0].close()
            raise GroupError("%s has started anew" % self.hosts[rank])
        elif kind in ("message", "lost") and self.wires.get(rank) is value[0]:
            self.hear(kind, rank, value[1])
            message = rank, value[1]
        self.check_end(time.monotonic())
        return message

    def beat(self):
        """Let the others hear of this part where that is due; the ranks that are lost."""
        lost, now = [], time.monotonic()
        if now - self.beat_at >= BEAT_S:
            self.beat_at = now
            for rank, wire in list(self.wires.items()):
                try:
                    wire.send(beat=1)
                except OSError:
                    lost.append(rank)
        return lost

    def hear(self, kind, rank, value):
        host = self.hosts[rank]
        if kind == "lost":
            raise GroupError("%s is lost: %s" % (host, value), 0 if self.leaving else 1)
        self.heard[rank] = time.monotonic()
        if "end" in value:
            raise GroupError(
                "%s ends: %s" % (host, str(value["end"])[:200]), 0 if self.leaving else 1
            )
        if "leave" in value and self.rank == 0:
            self.leave("%s is stopped" % host, False)

    def leave(self, why, own):
        """Begin a graceful end: the head lets its engine finish its requests, and then all end."""
        self.leaving = self.leaving or own
        if self.deadline is not None:
            return
        log(why)
        self.deadline = time.monotonic() + self.config["drain_s"] + MARGIN_S
        if self.engine is None:
            raise GroupError("it has not started yet", 0)
        with contextlib.suppress(OSError):
            if self.rank == 0:
                self.engine.terminate()
            else:
                self.wires[0].send(leave=1)

    def check_end(self, now):
        status = 0 if self.leaving else 1
        ended = self.engine.poll() if self.engine is not None else None
        if ended is not None and self.deadline is None:
            # Wrong options: starting again would not help.
            raise GroupError("its engine ended with %d" % ended, 2 if ended == 2 else 1)
        if ended is not None and self.rank == 0:
            raise GroupError("its engine has ended", status)
        if self.deadline is not None and now > self.deadline:
            raise GroupError("its engine did not end in time", status)
        for rank, heard in self.heard.items():
            if now - heard > SILENT_S:
                raise GroupError("%s is silent for %d s" % (self.hosts[rank], SILENT_S), status)

    # What the head does.

    def lead(self):
        family = socket.AF_INET6 if ":" in self.addresses[0] else socket.AF_INET
        with socket.create_server(("", self.config["port"]), family=family) as server:
            threading.Thread(target=self.accept, args=(server,), daemon=True).start()
            self.meet()
            self.start_engine()
            for rank in range(1, self.size):
                self.start_member(rank)
            tell_systemd("all %d parts run" % self.size)
            self.watch()

    def accept(self, server):
        slots = threading.Semaphore(MOST_CONNECTIONS)
        try:
            while server.fileno() >= 0:
                self.accept_one(server, slots)
        finally:
            self.events.put(("deaf", 0, (None, {})))

    def accept_one(self, server, slots):
        try:
            connection, _ = server.accept()
        except OSError:
            # It passes: no descriptor is free, or who connected is gone.
            time.sleep(ACCEPT_S)
            return
        if not slots.acquire(blocking=False):
            connection.close()
            return
        try:
            arguments = connection, slots
            threading.Thread(target=self.welcome, args=arguments, daemon=True).start()
        except (RuntimeError, MemoryError):
            connection.close()
            slots.release()

    def welcome(self, connection, slots):
        wire = Wire(connection)
        try:
            rank = admit(wire, self.secret, self.size, self.config["settings"])
            self.events.put(("joined", rank, (wire, {})))
        except (OSError, ValueError, RecursionError, TypeError) as error:
            log("a connection is refused: %s" % str(error)[:200])
            wire.close()
        finally:
            slots.release()

    def meet(self):
        """Wait until all members are there."""
        while len(self.wires) < self.size - 1:
            self.waits_for(set(range(1, self.size)) - set(self.wires))
            kind, rank, value = self.next_event(0.5)
            if kind == "term":
                raise GroupError("stopped while it waited", 0)
            if kind == "deaf":
                raise GroupError("it takes no members any more")
            if kind == "joined":
                if rank in self.wires:
                    self.wires.pop(rank).close()
                self.listen_to(rank, value[0])
            if kind == "lost" and self.wires.get(rank) is value[0]:
                self.forget(rank)
            if kind == "message" and self.wires.get(rank) is value[0]:
                self.heard[rank] = time.monotonic()
            now = time.monotonic()
            silent = [one for one, at in self.heard.items() if now - at > SILENT_S]
            for lost in {*silent, *self.beat()} & set(self.wires):
                self.forget(lost)
        self.waits_for(())

    def forget(self, rank):
        self.heard.pop(rank, None)
        self.wires.pop(rank).close()

    def start_member(self, rank):
        """Let a member start, and wait until it has."""
        try:
            self.wires[rank].send(start=1)
        except OSError as error:
            raise GroupError("%s is lost: %s" % (self.hosts[rank], error)) from error
        until = time.monotonic() + STARTED_S
        while time.monotonic() < until:
            other, message = self.look()
            if other == rank and "started" in message:
                return
        raise GroupError("%s did not start its part" % self.hosts[rank])

    # What a member does.

    def follow(self):
        patience_s = 2 * self.config["drain_s"] + STARTED_S
        differs_since = None
        while True:
            self.waits_for([0])
            wire, same = self.reach()
            if wire is not None and same:
                break
            now = time.monotonic()
            if wire is not None:
                wire.close()
                differs_since = differs_since or now
                if now - differs_since > patience_s:
                    raise GroupError("the head has other settings: its part was left or put back")
            kind, _, _ = self.next_event(RETRY_S)
            if kind == "term":
                raise GroupError("stopped while it waited", 0)
        self.listen_to(0, wire)
        self.await_start()
        self.start_engine()
        wire.send(started=1)
        tell_systemd("all parts run")
        self.watch()

    def reach(self):
        """A connection to the head, None where there is none, and whether the settings agree."""
        address = self.addresses[0], self.config["port"]
        try:
            wire = Wire(socket.create_connection(address, HANDSHAKE_S))
        except OSError:
            return None, False
        try:
            return wire, join(wire, self.secret, self.rank, self.config["settings"])
        except (OSError, ValueError, RecursionError) as error:
            log("the head is not joined: %s" % str(error)[:200])
            wire.close()
            return None, False

    def await_start(self):
        """Wait until the head has all members and it is this one's turn."""
        tell_systemd("waits for the others")
        while "start" not in self.look()[1]:
            pass


def main():
    with open("part.json") as file:
        config = json.load(file)
    with open(os.path.join(os.environ["CREDENTIALS_DIRECTORY"], "part.secret"), "rb") as file:
        secret = file.read().strip()
    return Part(config, secret).run()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Threads that wait for others must not keep it.
    os._exit(status)
