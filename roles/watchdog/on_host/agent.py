"""The agent port: tells balancers and other hosts how the replicas are; runs on a host.

`NAME` is answered with "up 100%", "down" or nothing, as balancers' agent checks take it, `state`
with one line of JSON.
"""

import contextlib
import json
import socket
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor, wait

from roles.host.probe import parsed
from roles.watchdog.on_host.breaker import UNKNOWN, Member
from roles.watchdog.on_host.files import DAMAGED, ask

# A name with its end of line; longer questions are not answered.
MOST_QUESTION = 256
QUESTION_S, MOST_CONNECTIONS = 2, 32
# How long other hosts have for their answer, one and all together.
PEER_S, PEERS_S, PEERS_AT_ONCE = 1, 3, 16
STATE_BYTES = 1 << 16


class Peer(namedtuple("Peer", "host address replicas")):
    """Another host; `replicas` are its planned ones: service by name."""


class Board:
    """What the agent port answers; replaced as a whole by the watchdog's loop."""

    def __init__(self):
        self.words, self.state = {}, "{}"

    def answer(self, question):
        if question == "state":
            return self.state + "\n"
        word = self.words.get(question, "")
        return word + "\n" if word else ""


def listen(address, port):
    """A socket that listens at the agent port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind((address, port))
    server.listen(64)
    return server


def serve(server, board):
    """Answer at the agent port for ever, each connection in its own thread."""
    free = threading.Semaphore(MOST_CONNECTIONS)
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            time.sleep(0.1)
            continue
        if not free.acquire(blocking=False):
            connection.close()
            continue
        threading.Thread(target=_answer, args=(connection, board, free), daemon=True).start()


def _answer(connection, board, free):
    try:
        with contextlib.suppress(OSError, ValueError), connection:
            line = _line(connection, time.monotonic() + QUESTION_S)
            connection.sendall(board.answer(line).encode())
    finally:
        free.release()


def _line(connection, end):
    """The line that a client sends until `end`."""
    question = b""
    while b"\n" not in question and len(question) < MOST_QUESTION:
        connection.settimeout(max(0.01, end - time.monotonic()))
        part = connection.recv(MOST_QUESTION - len(question))
        if not part:
            break
        question += part
    return question.partition(b"\n")[0].decode().strip()


def ask_peers(peers, port):
    """The replicas of other hosts as (service, member), by host; None for one without an answer.

    All are asked side by side and have the same short time.
    """
    pool = ThreadPoolExecutor(max_workers=PEERS_AT_ONCE)
    asked = {pool.submit(_ask_peer, peer, port): peer for peer in peers}
    done, _ = wait(asked, timeout=PEERS_S)
    for future in asked:
        future.cancel()
    pool.shutdown(wait=False)
    return {
        peer.host: future.result() if future in done else None for future, peer in asked.items()
    }


def _ask_peer(peer, port):
    try:
        with socket.create_connection((peer.address, port), PEER_S) as connection:
            answer = ask(connection, "state", PEER_S, STATE_BYTES)
            return peer_members(peer, parsed(answer))
    except DAMAGED:
        return None


def peer_members(peer, state):
    """The planned replicas of a peer as its answer has them, with their service; a replica that it
    does not name is unknown. One of `DAMAGED` where the answer is none."""
    found = {one["name"]: one for one in state["replicas"]}
    return [_member(peer.host, name, service, found) for name, service in peer.replicas.items()]


def _member(host, name, service, found):
    one = found.get(name, {"state": UNKNOWN, "intends": False, "since_s": 0})
    since_s, group = float(one["since_s"]), str(one.get("group", ""))
    return service, Member(host, name, str(one["state"]), bool(one["intends"]), since_s, group)


def state_line(host, members, details):
    """The answer to `state`: the replicas of this host by (service, member), with what more is to
    be shown of each by its name; other hosts read the members alone."""
    replicas = [
        {
            **details.get(one.name, {}),
            "name": one.name,
            "service": service,
            "state": one.state,
            "since_s": round(one.since_s, 1),
            "intends": one.intends,
            "group": one.group,
        }
        for service, one in members
    ]
    return json.dumps({"host": host, "replicas": replicas})
