"""Runs on a host, after probe.py, serving.py and legacy.py: a replica's folders, links and unit.

All that decides how a replica starts stands in a numbered folder of its own, which the link
`current_link` beside it leads to. What runs is read from the process: its working directory is its
folder.
"""

import contextlib
import json
import os
import pwd
import re
import shutil
import socket
import tempfile
import time

from roles.host.legacy import LEGACY_FOLDER, is_legacy, legacy_key, legacy_replica
from roles.host.probe import ERRORS, TASK, request
from roles.host.serving import (
    MANIFEST,
    LaunchError,
    active,
    key_of,
    properties,
    read_manifest,
    report_phase,
    run,
    unit,
    wait,
)

STATE = "/var/lib/llm"
UNFINISHED = STATE + "/unfinished"
REPLICAS = "/etc/llm/replicas"
UNITS = "/etc/systemd/system"
TEMPLATE = UNITS + "/llm-engine@.service"
NUMBER = re.compile(r"[1-9][0-9]*\Z")
# What the text of a file raises that is not as it was written.
DAMAGED = (ValueError, LookupError, TypeError)


def write(path, text, mode="644"):
    """Replace a file by a rename, so that nobody ever reads half of it."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    handle, new = tempfile.mkstemp(dir=folder, prefix=".new-")
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(new, int(mode, 8))
    os.replace(new, path)


def read(path):
    """The text of a file, or None where there is none."""
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return None


def remove(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def switch_link(link, target):
    """Have a link lead somewhere else, at once."""
    os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
    new = link + ".new"
    remove(new)
    os.symlink(target, new)
    os.replace(new, link)


# What is on the host.


def replica_folder(name):
    return os.path.join(REPLICAS, name)


def current_link(name):
    return os.path.join(replica_folder(name), "current")


def drop_in(name):
    return os.path.join(UNITS, unit(name) + ".d", "replica.conf")


def own_unit(name):
    """A replica's own copy of the shared unit: it counts in place of one that is to be replaced."""
    return os.path.join(UNITS, unit(name))


def starts_by_own_unit(name):
    """Whether what starts a replica at boot leads to its own copy of the unit, there or gone."""
    try:
        link = os.readlink(os.path.join(UNITS, "multi-user.target.wants", unit(name)))
    except OSError:
        return False
    return os.path.basename(link) == unit(name)


def linked_folder(name):
    """The folder that a replica would start from, or None."""
    try:
        return os.path.join(replica_folder(name), os.readlink(current_link(name)))
    except OSError:
        return None


def running_folder(name):
    """The folder that a replica's main process runs in; None where it has no process or is an
    older deploy's."""
    pid = properties(name, "MainPID").get("MainPID", "0")
    try:
        folder = os.readlink("/proc/%s/cwd" % pid) if pid != "0" else ""
    except OSError:
        return None
    return folder if os.path.dirname(folder) == replica_folder(name) else None


def digest_of(folder):
    """The digest of what a folder holds, or None where it is no whole one."""
    text = read(os.path.join(folder, "replica.json")) if folder else None
    try:
        return json.loads(text)["digest"] if text else None
    except DAMAGED:
        return None


def should_run(name):
    """Whether a replica is meant to run: it does, or a run that was killed had stopped it."""
    return active(name) or run("systemctl", "is-enabled", unit(name), ok=()) == "enabled"


def known_replicas():
    """Replicas that a unit exists for, running or not."""
    text = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "llm-engine@*.service")
    units = {line.split()[0] for line in text.splitlines() if line.strip()}
    wants = os.path.join(UNITS, "multi-user.target.wants")
    with contextlib.suppress(FileNotFoundError):
        units |= {name for name in os.listdir(wants) if name.startswith("llm-engine@")}
    return {name[len("llm-engine@") : -len(".service")] for name in units}


def recorded_replicas():
    """What the last deploys proved, by name, with the key of each: what a failure leads back to.

    LaunchError where that cannot be read: nothing may change then.
    """
    path = MANIFEST
    try:
        found: dict = {name: dict(one, key=key_of(one)) for name, one in read_manifest().items()}
        for name in sorted(known_replicas() - set(found)):
            path = "%s/%s.yaml" % (LEGACY_FOLDER, name)
            if is_legacy(name):
                found[name] = dict(legacy_replica(name), folder=None, key=legacy_key())
    except DAMAGED as error:
        raise LaunchError("%s is damaged (%r): repair it, or stop what runs from it and delete it, "
                          "and deploy again" % (path, error)) from error  # fmt: skip
    return found


# Before anything changes.


def ensure_user(name, groups):
    try:
        pwd.getpwnam(name)
    except KeyError:
        run("useradd", "--system", "--user-group", "--home-dir", STATE, "--shell",
            "/usr/sbin/nologin", name)  # fmt: skip
    for group in groups:
        run("groupadd", "--system", "--force", group)
        run("usermod", "-a", "-G", group, name)
    missing = set(groups) - set(run("id", "-nG", name).split())
    if missing:
        raise LaunchError("user %s is not in the groups %s, which own the GPUs' device files"
                          % (name, ", ".join(sorted(missing))))  # fmt: skip


def check_files():
    """Let systemd and nft read what is new, staged, before anything replaces the old."""
    with tempfile.TemporaryDirectory() as stage:
        paths = []
        for replica in TASK["replicas"]:
            path = os.path.join(stage, unit(replica["name"]))
            write(path, TASK["template"])
            write(path + ".d/replica.conf", replica["files"]["unit.conf"]["text"])
            paths.append(path)
        for path, text in TASK["firewall"].items():
            staged = os.path.join(stage, os.path.basename(path))
            write(staged, text)
            if staged.endswith(".nft"):
                run("nft", "--check", "-f", staged)
            else:
                paths.append(staged)
        answer = run("systemd-analyze", "verify", "--man=no", *paths) if paths else ""
        # Its exit status is 0 for a key or a value that it does not know.
        ours = [line for line in answer.splitlines() if "llm-" in line]
        if ours:
            raise LaunchError("systemd does not accept the new units: " + "\n".join(ours))


def old_keys(replica, before):
    """The key by which balancers ask a replica until the rolling update is over, if another."""
    same = [one for one in before.values() if one["name"] == replica["name"]]
    same += [one for one in before.values() if one["port"] == replica["port"]]
    return [one["key"] for one in same[:1] if one["key"] not in ("", replica["key"])]


def prepare(replica, before):
    """Write a replica's new folder, beside all others; returns its path.

    It accepts the key that the replica has now as well, so that a change of key loses no request
    while other hosts and balancers still have the old one.
    """
    os.makedirs(replica_folder(replica["name"]), mode=0o755, exist_ok=True)
    taken = [
        int(name) for name in os.listdir(replica_folder(replica["name"])) if NUMBER.match(name)
    ]
    folder = os.path.join(replica_folder(replica["name"]), str(max(taken, default=0) + 1))
    partial = os.path.join(replica_folder(replica["name"]), ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial, mode=0o755)
    keys = [replica["key"], *old_keys(replica, before)]
    for name, file in replica["files"].items():
        text = file["text"] + "".join(
            line.format(key) + "\n" for line in file["key_lines"] for key in keys[: file["keys"]]
        )
        write(os.path.join(partial, name), text, file["mode"])
    os.rename(partial, folder)
    return folder


# One replica.


def port_is_free(port):
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def active_requests(replica):
    """How many requests a replica without a drain of its own works on; 0 where it does not say."""
    url = "http://127.0.0.1:%d%s" % (replica["port"], replica["busy"]["path"])
    try:
        with request(url, replica["key"], timeout_s=3) as response:
            text = response.read().decode(errors="replace") if response.status == 200 else ""
        lines = [line.split() for line in text.splitlines()]
        gauges = replica["busy"]["gauges"]
        return sum(float(line[1]) for line in lines if len(line) == 2 and line[0] in gauges)
    except ERRORS:
        return 0


def drain(replica):
    """Wait until a replica that would cut its requests off has ended them, or time is up."""
    deadline = time.monotonic() + TASK["drain_timeout_s"]
    while replica.get("busy") and time.monotonic() < deadline and active_requests(replica):
        time.sleep(0.2)


def stop(names, before):
    """Stop replicas, those that serve once they have ended their requests."""
    for name in names:
        if name in before and active(name):
            report_phase(name, "drain")
            drain(before[name])
    if names:
        run("systemctl", "stop", *[unit(name) for name in names])


def retire(names, before):
    """Stop replicas for good; systemd forgets that one had failed."""
    stop(names, before)
    for name in names:
        run("systemctl", "disable", "--quiet", unit(name), ok=())
        run("systemctl", "reset-failed", unit(name), ok=())
        remove(current_link(name))
        shutil.rmtree(os.path.dirname(drop_in(name)), ignore_errors=True)
        remove(own_unit(name))
        for suffix in ("env", "yaml"):
            remove("%s/%s.%s" % (LEGACY_FOLDER, name, suffix))


def switch_to(name, folder):
    """Have a replica start from a folder of its own from now on."""
    switch_link(current_link(name), os.path.basename(folder))
    if read(TEMPLATE) != TASK["template"]:
        # Replicas that have not moved yet go on starting by the shared unit as it is.
        write(own_unit(name), TASK["template"])
    if not os.path.lexists(drop_in(name)):
        switch_link(drop_in(name), os.path.join(current_link(name), "unit.conf"))


def start(replica):
    """Start a replica's unit on a port that nobody else listens on."""
    name = replica["name"]
    if not port_is_free(replica["port"]):
        owner = run("ss", "-ltnpH", "sport = :%d" % replica["port"], ok=())
        raise LaunchError("port %d of %s is taken: %s" % (replica["port"], name, owner), [name])
    run("systemctl", "reset-failed", unit(name), ok=())
    run("systemctl", "enable", "--quiet", unit(name))
    # The answer of Type=exec is whether the program could be run at all.
    run("systemctl", "start", unit(name), ok=())


def await_all(replicas, served=lambda replica: None):
    """Wait until all of some replicas serve, and tell of each that does; LaunchError names each
    that does not, with the log of the first: the others often fail by the same."""
    failed = {}
    for replica in replicas:
        try:
            wait(replica, replica["key"], TASK["start_timeout_s"])
            served(replica)
        except LaunchError as error:
            failed[replica["name"]] = error.problem if failed else str(error)
    if failed:
        raise LaunchError("\n".join(failed.values()), failed)
