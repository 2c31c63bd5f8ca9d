"""Runs on a host, after probe.py: waits until replicas serve, or says why one does not."""

import contextlib
import json
import math
import os
import re
import shlex
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

from roles.host.probe import PROOFS, TASK, plain

LOG_LINES, ERROR_LINES, LINE_LENGTH, LOG_BYTES = 15, 4, 500, 1 << 18
# Seconds that one completion may take.
ANSWER_S = 30.0
# How Python, CUDA and the engines name what went wrong.
ERROR = re.compile(
    r"(\w{0,80}(Error|Exception)\b: |CUDA error|out of memory|assertion failed)", re.I
)
# How often the log of a replica that starts is read.
READ_S = 3
# Prefix of a line that reports a replica's phase: "@@progress NAME PHASE".
PROGRESS = "@@progress "
MANIFEST = "/etc/llm/manifest.json"


class LaunchError(Exception):
    """A failure that a person must repair: its text is the problem and the log.

    `problem` is the problem alone; `replicas` are those that do not serve.
    """

    def __init__(self, problem, replicas=(), log=""):
        super().__init__("%s\n%s" % (problem, log) if log else problem)
        self.problem, self.replicas = problem, tuple(replicas)


def run(*arguments, ok=(0,)):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # What engines write into their logs need not be UTF-8.
    text = done.stdout.decode(errors="replace").strip()
    if ok and done.returncode not in ok:
        raise LaunchError("%s: %s" % (" ".join(arguments), text))
    return text


def unit(name):
    return "llm-engine@%s.service" % name


def active(name):
    return run("systemctl", "is-active", unit(name), ok=()) in ("active", "activating")


def properties(name, *keys):
    text = run("systemctl", "show", unit(name), *["--property=" + key for key in keys])
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def read_manifest():
    """The replicas that the last deploys proved, by name; empty if there is no manifest."""
    try:
        with open(MANIFEST) as file:
            return {one["name"]: one for one in json.load(file)["replicas"]}
    except FileNotFoundError:
        return {}


def key_of(replica):
    """The key of a replica, from its folder; "" if it has none."""
    try:
        with open(os.path.join(replica["folder"], "keys")) as file:
            return file.readline().strip()
    except FileNotFoundError:
        return ""


def report_phase(name, phase):
    """Print a replica's phase if the task asks for it; ignores a closed pipe."""
    if TASK.get("progress"):
        with contextlib.suppress(OSError):
            os.write(1, ("%s%s %s\n" % (PROGRESS, name, phase)).encode())


def listens(port):
    """Whether a program accepts connections at a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_all(replicas, timeout_s):
    """Wait for several replicas at once, each with its key; yields each as soon as it is decided,
    with None where it serves and with its LaunchError where it does not.

    All have the same deadline: one after the other would each begin to count when the one before
    has used its time up.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(replicas))) as pool:
        waited = {pool.submit(wait, one, key, timeout_s): one for one, key in replicas}
        for future in as_completed(waited):
            error = future.exception()
            if error is not None and not isinstance(error, LaunchError):
                raise error
            yield waited[future], error


def wait(replica, key, timeout_s):
    """Wait until a replica answers a real completion, or what stands for one where its `task` is
    another, with its own model.

    `replica` has a name, a port and a model. A part of a replica over several hosts names the
    `head`, the address that answers for all parts: it serves when they do. One that `may_restart`
    does not fail by restarts of its unit. Raises LaunchError, with the end of the log.
    """
    prove = PROOFS[replica.get("task", "generate")]
    name, start = replica["name"], time.monotonic()
    first_id = properties(name, "InvocationID")["InvocationID"]
    why = "no completion within %d s" % timeout_s
    # One restart may help: the memory of a process that has just ended may be freed late.
    restarts = int(properties(name, "NRestarts")["NRestarts"])
    allowed = math.inf if replica.get("may_restart") else restarts + 1
    answer, progress = {"status": None}, Progress(replica)
    while time.monotonic() < start + timeout_s:
        progress.look(answer["status"])
        ended = _ended(name, allowed)
        if ended:
            why = ended
            break
        left_s = max(1.0, start + timeout_s - time.monotonic())
        url = base_url(replica)
        answer = prove(url, key, replica["model"], timeout_s=min(ANSWER_S, left_s))
        if answer["ok"] and answer["model"] in (replica["model"], None):
            report_phase(name, "serves")
            return
        if answer["ok"]:
            why = "it serves %s, not %s" % (answer["model"], replica["model"])
            break
        if answer["status"]:
            why = "it answers " + answer["error"]
        # A wrong key or model name will not change by itself.
        if answer["status"] in (401, 404):
            break
        # Poll quickly at first: some engines are ready at once.
        time.sleep(0.1 if time.monotonic() < start + 3 else 1)
    report_phase(name, "does not serve: " + why)
    raise LaunchError("%s does not serve: %s" % (name, why), [name], log(name, key, first_id))


def base_url(replica):
    """Where a replica answers: on this host, or on its head."""
    head = replica.get("head") or "127.0.0.1"
    return "http://%s:%d" % ("[%s]" % head if ":" in head else head, replica["port"])


class Progress:
    """Tells what a replica that starts is at, where the task asks for it and when that changes."""

    def __init__(self, replica):
        self.replica, self.phase, self.read_at = replica, "load", time.monotonic()
        report_phase(replica["name"], self.phase)

    def look(self, status):
        """`status` is the last that the replica answered, None for nothing."""
        phase = self._now(status) if TASK.get("progress") else self.phase
        if phase != self.phase:
            self.phase = phase
            report_phase(self.replica["name"], phase)

    def _now(self, status):
        # Some listen from their very begin, and say that they are not ready, or nothing.
        silent = status == 503 or self.replica.get("listens_first") or self.replica.get("head")
        if not silent and listens(self.replica["port"]):
            return "first token"
        if time.monotonic() - self.read_at < READ_S:
            return self.phase
        self.read_at = time.monotonic()
        start_id = properties(self.replica["name"], "InvocationID")["InvocationID"]
        text = journal("_SYSTEMD_INVOCATION_ID=" + start_id)
        return last_phase(text, self.replica.get("phases", ())) or "load"


def last_phase(text, phases):
    """The words for the last line of a log that one of the patterns finds; "" where none does."""
    last = (-1, "")
    for pattern, words in phases:
        for found in re.finditer(pattern, text):
            last = max(last, (found.start(), words.format(*found.groups())))
    return last[1]


def _ended(name, allowed):
    """Why a unit has ended and will not serve; "" if it has not."""
    state = properties(name, "ActiveState", "NRestarts", "Result", "ExecMainStatus")
    if state["ActiveState"] == "failed" or int(state["NRestarts"]) > allowed:
        return "its unit failed (%s, exit status %s, %s restarts)" % (
            state["Result"],
            state["ExecMainStatus"],
            state["NRestarts"],
        )
    return "its unit is stopped" if state["ActiveState"] == "inactive" else ""


def log(name, key, first_id):
    """The errors and last log lines of a unit's first start, or else of its last one.

    The first start shows the cause. The key is masked, in case an engine prints it.
    """
    # A unit may have ended before the journal has stored its last lines.
    run("timeout", "20", "journalctl", "--sync", ok=())
    start_id = properties(name, "InvocationID")["InvocationID"]
    first = log_of_start(first_id) if first_id != start_id else ""
    text = first or log_of_start(start_id)
    # A unit that has just been restarted has logged nothing yet.
    text = text or journal("-u", unit(name))
    text = text.replace(key, "***") if key else text
    lines = ["    " + plain(line)[:LINE_LENGTH] for line in log_excerpt(text.splitlines())]
    which = ", its first start" if first else ""
    more = "  more: sudo journalctl -u %s --no-pager -n 500 | less" % unit(name)
    return "  last log lines of %s%s:\n%s\n%s" % (unit(name), which, "\n".join(lines), more)


def log_of_start(start_id):
    """The log of one start of a unit, with systemd's lines about it; "" if the unit logged
    nothing."""
    invocation = "_SYSTEMD_INVOCATION_ID=" + start_id
    return journal(invocation) and journal(invocation, "+", "INVOCATION_ID=" + start_id)


def journal(*matches):
    """The last journal lines that match; bounded in bytes, as one message may have any length."""
    command = ("journalctl", "--no-pager", "-o", "cat", "-n", "400", *matches)
    return run("sh", "-c", "%s | tail -c %d" % (shlex.join(command), LOG_BYTES), ok=()).strip()


def log_excerpt(lines):
    """The first errors, which explain the rest, and then the last lines."""
    last = lines[-LOG_LINES:]
    errors = [line for line in lines[:-LOG_LINES] if ERROR.search(line)]
    return [*dict.fromkeys(errors[:ERROR_LINES]), *(["…"] if errors else []), *last]
