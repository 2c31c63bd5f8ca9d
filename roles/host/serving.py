"""Runs on a host, after probe.py: waits until replicas serve, and says why one does not."""

import subprocess
import time

from roles.host.probe import TASK, chat

LOG_LINES = 25


class LaunchError(Exception):
    """Something that a person must mend; its text says what."""


def run(*arguments, ok=(0,)):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ok and done.returncode not in ok:
        raise LaunchError("%s: %s" % (" ".join(arguments), done.stdout.strip()))
    return done.stdout.strip()


def unit(name):
    return "llm-engine@%s.service" % name


def active(name):
    return run("systemctl", "is-active", unit(name), ok=()) in ("active", "activating")


def properties(name, *keys):
    text = run("systemctl", "show", unit(name), *["--property=" + key for key in keys])
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def wait(name, port, model, key):
    """Wait for a real completion; LaunchError with the log's end where none comes."""
    deadline = time.monotonic() + TASK["start_timeout_s"]
    why = "no completion within %d s" % TASK["start_timeout_s"]
    # One restart may heal, as when the memory of a process that just ended is freed late.
    allowed = int(properties(name, "NRestarts")["NRestarts"]) + 1
    while time.monotonic() < deadline:
        state = properties(name, "ActiveState", "NRestarts", "Result", "ExecMainStatus")
        if state["ActiveState"] == "failed" or int(state["NRestarts"]) > allowed:
            why = "its unit failed (%s, exit status %s, %s restarts)" % (
                state["Result"],
                state["ExecMainStatus"],
                state["NRestarts"],
            )
            break
        if state["ActiveState"] == "inactive":
            why = "its unit is stopped"
            break
        answer = chat("http://127.0.0.1:%d" % port, key, model)
        if answer["ok"]:
            return
        if answer["status"]:
            why = "it answers " + answer["error"]
        # A wrong key or model name does not mend itself.
        if answer["status"] in (401, 404):
            break
        time.sleep(1)
    raise LaunchError("%s does not serve: %s\n%s" % (name, why, log(name)))


def log(name):
    """The last log lines of a unit's last start, without the key should an engine ever print it."""
    start_id = properties(name, "InvocationID")["InvocationID"]
    # A unit has ended before the journal has taken its last words.
    run("timeout", "20", "journalctl", "--sync", ok=())
    text = run(
        *("journalctl", "--no-pager", "-o", "cat", "-n", str(LOG_LINES)),
        *("_SYSTEMD_INVOCATION_ID=" + start_id, "+", "INVOCATION_ID=" + start_id),
        ok=(),
    )
    lines = ["    " + line for line in text.replace(TASK["key"], "***").splitlines()]
    return "  last log lines of %s:\n%s" % (unit(name), "\n".join(lines))
