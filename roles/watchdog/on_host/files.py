"""Files and answers that the watchdog reads and writes; runs on a host, after probe.py."""

import contextlib
import json
import os
import re
import socket
import tempfile
import time
from collections import namedtuple

from roles.host.probe import PROOFS, parsed

MOST_BYTES = 1 << 20
# Names go into answers, metrics and the names of units.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class Replica(
    namedtuple(
        "Replica", "name service port model watch gpus group task", defaults=("", "generate")
    )
):
    """A replica of the manifest; `watch` is None where its engine has no counter. Parts of one
    replica that spans hosts have the same `group`, "" stands for none. `task` is one of PROOFS."""


def read_bounded(path):
    """The bytes of a file; ValueError where it is larger than any of ours."""
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError("it is larger than %d bytes" % MOST_BYTES)
    return data


def read_json(path):
    return parsed(read_bounded(path).decode())


def read_replicas(path, engines):
    """The replicas of a manifest by name; one of `DAMAGED` where it cannot be read.

    `engines` has what is watched of each kind of engine, for entries of an earlier version. A
    replica over several hosts is watched on its head alone, which answers.
    """
    entries = [one for one in read_json(path)["replicas"] if not one.get("rank")]
    replicas = [_replica_of(entry, engines) for entry in entries]
    return {one.name: one for one in replicas}


def _replica_of(entry, engines):
    name, service, port, model = (entry[key] for key in ("name", "service", "port", "model"))
    if not all(isinstance(text, str) for text in (name, service, model)):
        raise ValueError("a replica's name, service and model are texts")
    if not (NAME.match(name) and NAME.match(service)):
        raise ValueError("not the name of a replica: %r" % name[:80])
    if type(port) is not int or not 0 < port < 65536:
        raise ValueError("not the port of a replica: %r" % str(port)[:80])
    watch = entry.get("watch") or engines.get(entry.get("engine"))
    gpus = [int(gpu) for gpu in entry.get("gpus") or ()]
    group = entry.get("group") or ""
    if not (isinstance(group, str) and (not group or NAME.match(group))):
        raise ValueError("not the name of a group: %r" % str(group)[:80])
    task = entry.get("task", "generate")
    if task not in PROOFS:
        raise ValueError("not the task of a service: %r" % str(task)[:80])
    return Replica(name, service, port, model, checked_watch(watch), gpus, group, task)


def checked_watch(watch):
    """What is watched of a replica, with checked types; ValueError otherwise."""
    if watch is None:
        return None
    texts = [*watch["steps"], *watch["pending"], watch["path"]]
    if not all(isinstance(text, str) for text in texts) or not watch["path"].startswith("/"):
        raise ValueError("not what is watched of a replica")
    return dict(watch, keyed=bool(watch.get("keyed")), slots=bool(watch.get("slots")))


def write_whole(path, text):
    """Replace a file by a rename, so that a reader sees the old or the new text."""
    handle, new = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".new-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(new, 0o644)
        os.replace(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


def locked(path, locks="/proc/locks"):
    """Whether a process holds the lock of a file; a file that nobody holds says nothing.

    To try the lock would keep a deploy from taking it.
    """
    try:
        inode = str(os.stat(path).st_ino)
        rows = [line.split() for line in read_bounded(locks).decode().splitlines()]
    except DAMAGED:
        return False
    return any(
        row[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and row[5].split(":")[-1] == inode
        for row in rows
        if len(row) == 8
    )


def ask(connection, line, timeout_s, most_bytes=MOST_BYTES):
    """Send a line over a connected socket and return all that comes back in time."""
    end = time.monotonic() + timeout_s
    connection.settimeout(timeout_s)
    connection.sendall(line.encode() + b"\n")
    parts, left = [], most_bytes
    while left > 0:
        # A socket's own timeout would begin anew with each part.
        connection.settimeout(max(0.01, end - time.monotonic()))
        part = connection.recv(min(left, 65536))
        if not part:
            return b"".join(parts).decode()
        parts.append(part)
        left -= len(part)
    raise ValueError("the answer is longer than %d bytes" % most_bytes)


def ask_helper(path, command, timeout_s):
    """The answer of the root helper to a command; {"ok": False, "error": …} where it gave none."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(path)
            answer = parsed(ask(connection, json.dumps(command), timeout_s))
    except DAMAGED as error:
        return {"ok": False, "error": "the helper gives no answer: %s" % error}
    if not isinstance(answer, dict):
        return {"ok": False, "error": "the helper's answer is none"}
    return answer
