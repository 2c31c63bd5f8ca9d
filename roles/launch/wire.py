"""How the parts of a replica over several hosts speak to each other, and prove that they know the
group's secret. A program of hosts; see `part.py`.
"""

import contextlib
import hashlib
import hmac
import json
import secrets
import socket
import threading
import time

# A connection that proves nothing holds a thread for so long.
HANDSHAKE_S = 5
MOST_BYTES = 4096


class Wire:
    """A connection that carries lines of JSON, each of limited length; until it is `proved`, only
    for a limited time."""

    def __init__(self, connection):
        self.connection, self.rest = connection, b""
        self.sending = threading.Lock()
        self.until = time.monotonic() + HANDSHAKE_S
        connection.settimeout(HANDSHAKE_S)

    def proved(self):
        """Lift the limit of time."""
        self.until = None
        self.connection.settimeout(None)

    def send(self, **message):
        with self.sending:
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self):
        """The next message; OSError or ValueError where there is none."""
        while b"\n" not in self.rest:
            self.limit()
            data = self.connection.recv(MOST_BYTES)
            if not data:
                raise ConnectionError("the connection is closed")
            self.rest += data
            if len(self.rest) > MOST_BYTES:
                raise ValueError("a line is too long")
        line, _, self.rest = self.rest.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("a line is no message")
        return message

    def limit(self):
        # A socket's own timeout starts anew with each byte.
        if self.until is not None:
            left_s = self.until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("it proves nothing in %d s" % HANDSHAKE_S)
            self.connection.settimeout(left_s)

    def close(self):
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


def proof(secret, role, *parts):
    """What only who knows the secret can say; `role` keeps one side's words from being the
    other's."""
    text = "\0".join([role, *map(str, parts)])
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def is_proof(given, wanted):
    return isinstance(given, str) and hmac.compare_digest(given.encode(), wanted.encode())


def admit(wire, secret, size, settings):
    """The rank of the member at the other end; ValueError where it is none."""
    nonce = secrets.token_hex(16)
    wire.send(nonce=nonce)
    answer = wire.receive()
    rank, own = answer.get("rank"), answer.get("nonce")
    if type(rank) is not int or not 0 < rank < size or not isinstance(own, str):
        raise ValueError("it says no rank")
    if not is_proof(answer.get("proof"), proof(secret, "member", nonce, own, rank)):
        raise ValueError("it does not know the group's secret")
    same = answer.get("settings") == settings
    wire.send(proof=proof(secret, "head", own, nonce, rank), same=same)
    if not same:
        raise ValueError("rank %d has other settings" % rank)
    return rank


def join(wire, secret, rank, settings):
    """Prove this member to the head, and the head to it; whether both have the same settings."""
    nonce = wire.receive().get("nonce")
    if not isinstance(nonce, str):
        raise ValueError("it is no head")
    own = secrets.token_hex(16)
    words = proof(secret, "member", nonce, own, rank)
    wire.send(rank=rank, nonce=own, proof=words, settings=settings)
    answer = wire.receive()
    if not is_proof(answer.get("proof"), proof(secret, "head", own, nonce, rank)):
        raise ValueError("the head does not know the group's secret")
    return answer.get("same") is True
