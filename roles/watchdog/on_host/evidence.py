"""Keeps what shows why a replica hangs; runs on a host as root. Bounded in size and time."""

import os
import signal
import subprocess
import time

from roles.host.probe import plain
from roles.watchdog.on_host.units import UNIT

MOST_FILES, MOST_TEXT, MOST_LINE = 20, 1 << 20, 2000
LOG_LINES, MOST_PROCESSES = 300, 200
# All together, so that a restart that waits for it is not late; each program has less.
COLLECT_S, PROGRAM_S = 15, 5
# In place of what a program prints.
HANGS = "no answer in time"
# What is read of each process and thread.
STATUS = ("Name:", "State:", "VmRSS:", "Threads:", "SigQ:")


def collect(folder, replica, secrets, about_gpus):
    """Write all evidence about a replica into a new file of a folder; returns its path."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = os.path.join(folder, "%s-%s.txt" % (stamp, replica.name))
    text = "# what its GPUs ask for: %s\n\n%s" % (about_gpus, evidence(replica))
    for secret in secrets:
        text = text.replace(secret, "***") if secret else text
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text[:MOST_TEXT])
    for name in sorted(os.listdir(folder))[:-MOST_FILES]:
        os.unlink(os.path.join(folder, name))
    return path


def evidence(replica):
    """The evidence as text, the processes first, as they may end."""
    end, unit = time.monotonic() + COLLECT_S, UNIT % replica.name
    parts = []
    for pid in members_of_unit(replica.name)[:MOST_PROCESSES]:
        if time.monotonic() < end:
            parts.append(about_process(pid))
    for command in (
        ["systemctl", "status", "--no-pager", "--lines=0", unit],
        ["journalctl", "--no-pager", "-o", "short-iso", "-n", str(LOG_LINES), "-u", unit],
        ["journalctl", "--no-pager", "-k", "-n", "50"],
        ["nvidia-smi"],
        ["ss", "-tnH", "state", "all", "sport = :%d" % replica.port],
    ):
        left_s = min(PROGRAM_S, end - time.monotonic())
        if left_s > 0:
            parts.append("# %s\n%s" % (" ".join(command), output(command, left_s)))
    return "\n\n".join(parts) + "\n"


def about_process(pid):
    """What the kernel says of a process and its threads."""
    base = "/proc/%d" % pid
    command = first_bytes(base + "/cmdline").replace("\0", " ").split(" ")[0]
    lines = ["# process %d %s" % (pid, command)]
    lines += [
        line for line in first_bytes(base + "/status").splitlines() if line.startswith(STATUS)
    ]
    for thread in numbers(base + "/task")[:50]:
        own = "%s/task/%d" % (base, thread)
        where = "%s %s" % (first_bytes(own + "/wchan"), first_bytes(own + "/syscall").strip())
        lines.append("thread %d %s: %s" % (thread, first_bytes(own + "/comm").strip(), where))
        lines.append(first_bytes(own + "/stack").rstrip())
    return "\n".join(line for line in lines if line)


def first_bytes(path):
    """The begin of a small file of the kernel, "" where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(4096).decode(errors="replace")
    except OSError:
        return ""


def numbers(folder):
    """The numbers among the names of a folder."""
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdigit())
    except OSError:
        return []


def members_of_unit(name):
    """The processes of a replica's control group, whichever of its folders they are in."""
    unit = "/" + UNIT % name
    found = []
    for pid in numbers("/proc"):
        for line in first_bytes("/proc/%d/cgroup" % pid).splitlines():
            group = line.rpartition(":")[2]
            if group.endswith(unit) or unit + "/" in group:
                found.append(pid)
                break
    return found


def output(command, timeout_s):
    """What a program prints, line by line without characters that a terminal acts on; a program
    that hangs in the kernel is left behind."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        return str(error)
    try:
        text = process.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return HANGS
    lines = text.decode(errors="replace").splitlines()
    return "\n".join(plain(line[:MOST_LINE]) for line in lines)
