"""Runs on a host, after probe.py: waits until replicas serve, and says why one does not."""

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import time

from roles.host.probe import TASK, chat, plain

LOG_LINES, ERROR_LINES, LINE_LENGTH, LOG_BYTES = 15, 4, 500, 1 << 18
# How Python, CUDA and the engines name what went wrong.
ERROR = re.compile(
    r"(\w{0,80}(Error|Exception)\b: |CUDA error|out of memory|assertion failed)", re.I
)
# Begins a line that says what a replica is at: "@@progress NAME PHASE".
PROGRESS = "@@progress "
MANIFEST = "/etc/llm/manifest.json"


class LaunchError(Exception):
    """Something that a person must repair; its text says what, with the log that tells it,
    `problem` says it alone, `replicas` which did not serve."""

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
    """The replicas that the last deploys proved, by name; none where there is no manifest."""
    try:
        with open(MANIFEST) as file:
            return {one["name"]: one for one in json.load(file)["replicas"]}
    except FileNotFoundError:
        return {}


def key_of(replica):
    """The key of a replica, from its own folder; "" where it takes none."""
    try:
        with open(os.path.join(replica["folder"], "keys")) as file:
            return file.readline().strip()
    except FileNotFoundError:
        return ""


def report_phase(name, phase):
    """Say what a replica is at, where the task asks for it; nobody has to be there to hear it."""
    if TASK.get("progress"):
        with contextlib.suppress(OSError):
            os.write(1, ("%s%s %s\n" % (PROGRESS, name, phase)).encode())


def listens(port):
    """Whether anybody takes connections at a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait(replica, key, timeout_s):
    """Wait for a real completion of the right model; LaunchError with the log's end where none
    comes. `replica` has a name, a port and a model."""
    name, start = replica["name"], time.monotonic()
    first_id = properties(name, "InvocationID")["InvocationID"]
    why = "no completion within %d s" % timeout_s
    # One restart may heal, as when the memory of a process that just ended is freed late.
    allowed = int(properties(name, "NRestarts")["NRestarts"]) + 1
    loading = True
    report_phase(name, "load")
    while time.monotonic() < start + timeout_s:
        if loading and TASK.get("progress") and listens(replica["port"]):
            loading = False
            report_phase(name, "first token")
        ended = _ended(name, allowed)
        if ended:
            why = ended
            break
        answer = chat("http://127.0.0.1:%d" % replica["port"], key, replica["model"])
        if answer["ok"] and answer["model"] in (replica["model"], None):
            report_phase(name, "serves")
            return
        if answer["ok"]:
            why = "it serves %s, not %s" % (answer["model"], replica["model"])
            break
        if answer["status"]:
            why = "it answers " + answer["error"]
        # A wrong key or model name does not repair itself.
        if answer["status"] in (401, 404):
            break
        # An engine that is ready within a moment is not to be waited for longer.
        time.sleep(0.1 if time.monotonic() < start + 3 else 1)
    raise LaunchError("%s does not serve: %s" % (name, why), [name], log(name, key, first_id))


def _ended(name, allowed):
    """Why a unit will not serve any more, or ""."""
    state = properties(name, "ActiveState", "NRestarts", "Result", "ExecMainStatus")
    if state["ActiveState"] == "failed" or int(state["NRestarts"]) > allowed:
        return "its unit failed (%s, exit status %s, %s restarts)" % (
            state["Result"],
            state["ExecMainStatus"],
            state["NRestarts"],
        )
    return "its unit is stopped" if state["ActiveState"] == "inactive" else ""


def log(name, key, first_id):
    """The errors and the last log lines of a unit's first start, which failed first, or of its last
    start that said anything; without the key should an engine ever print it."""
    # A unit has ended before the journal has taken its last words.
    run("timeout", "20", "journalctl", "--sync", ok=())
    start_id = properties(name, "InvocationID")["InvocationID"]
    first = log_of_start(first_id) if first_id != start_id else ""
    text = first or log_of_start(start_id)
    # One that was started again a moment ago has said nothing yet.
    text = text or journal("-u", unit(name))
    text = text.replace(key, "***") if key else text
    lines = ["    " + plain(line)[:LINE_LENGTH] for line in log_excerpt(text.splitlines())]
    which = ", its first start" if first else ""
    more = "  more: sudo journalctl -u %s --no-pager -n 500 | less" % unit(name)
    return "  last log lines of %s%s:\n%s\n%s" % (unit(name), which, "\n".join(lines), more)


def log_of_start(start_id):
    """What a unit said in one start, and what systemd said of it; "" where it said nothing."""
    invocation = "_SYSTEMD_INVOCATION_ID=" + start_id
    return journal(invocation) and journal(invocation, "+", "INVOCATION_ID=" + start_id)


def journal(*matches):
    """What a journal has at its end of these messages; one may be as long as its writer wants."""
    command = ("journalctl", "--no-pager", "-o", "cat", "-n", "400", *matches)
    return run("sh", "-c", "%s | tail -c %d" % (shlex.join(command), LOG_BYTES), ok=()).strip()


def log_excerpt(lines):
    """The last lines, and before them the first errors, which the last ones follow from."""
    last = lines[-LOG_LINES:]
    errors = [line for line in lines[:-LOG_LINES] if ERROR.search(line)]
    return [*dict.fromkeys(errors[:ERROR_LINES]), *(["…"] if errors else []), *last]
