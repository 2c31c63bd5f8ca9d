"""Functions for a replica's folders, links and unit; runs on a host, after probe.py, serving.py and
legacy.py.

Everything that decides how a replica starts is in a numbered folder of its own, to which the link
`current` beside it points. The working directory of its process shows which folder it runs from.
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
    wait_all,
)

STATE = "/var/lib/llm"
UNFINISHED = STATE + "/unfinished"
QUARANTINE = STATE + "/quarantine"
REPLICAS = "/etc/llm/replicas"
UNITS = "/etc/systemd/system"
TEMPLATE = UNITS + "/llm-engine@.service"
NUMBER = re.compile(r"[1-9][0-9]*\Z")
# What reading a damaged file raises.
DAMAGED = (ValueError, LookupError, TypeError)


def write(path, text, mode="644"):
    """Replace a file by a rename, so that a reader sees the old or the new text, never a part."""
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
    """Point a link to another target, atomically."""
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
    """The path of a replica's own copy of the shared unit, which has precedence over the shared
    unit."""
    return os.path.join(UNITS, unit(name))


def starts_by_own_unit(name):
    """Whether a replica's link in multi-user.target.wants points to its own copy of the unit, even
    if that was removed."""
    try:
        link = os.readlink(os.path.join(UNITS, "multi-user.target.wants", unit(name)))
    except OSError:
        return False
    return os.path.basename(link) == unit(name)


def linked_folder(name):
    """The folder that a replica starts from next, or None."""
    try:
        return os.path.join(replica_folder(name), os.readlink(current_link(name)))
    except OSError:
        return None


def running_folder(name):
    """The folder that a replica's main process runs from; None where it has no process, or runs
    from the files of an earlier version of this project."""
    pid = properties(name, "MainPID").get("MainPID", "0")
    try:
        folder = os.readlink("/proc/%s/cwd" % pid) if pid != "0" else ""
    except OSError:
        return None
    return folder if os.path.dirname(folder) == replica_folder(name) else None


def digest_of(folder):
    """The digest of a replica's folder, or None where the folder is incomplete."""
    text = read(os.path.join(folder, "replica.json")) if folder else None
    try:
        return json.loads(text)["digest"] if text else None
    except DAMAGED:
        return None


def should_run(name):
    """Whether a replica runs, or is enabled: a killed run may have stopped it. One that is
    quarantined should not."""
    if is_quarantined(name):
        return False
    return active(name) or run("systemctl", "is-enabled", unit(name), ok=()) == "enabled"


def is_quarantined(name):
    return os.path.exists(os.path.join(QUARANTINE, name + ".json"))


def known_replicas():
    """Names of replicas that have a unit, running or not."""
    text = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "llm-engine@*.service")
    units = {line.split()[0] for line in text.splitlines() if line.strip()}
    wants = os.path.join(UNITS, "multi-user.target.wants")
    with contextlib.suppress(FileNotFoundError):
        units |= {name for name in os.listdir(wants) if name.startswith("llm-engine@")}
    return {name[len("llm-engine@") : -len(".service")] for name in units}


def recorded_replicas():
    """The replicas that earlier deploys proved to serve, by name, each with its key. A failed run
    restores them.

    LaunchError where they cannot be read: then nothing may change.
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
    """Let systemd and nft check the new units and rules before they replace the old ones."""
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
        # The exit status is 0 even for an unknown key or value, so its output decides.
        ours = [line for line in answer.splitlines() if "llm-" in line]
        if ours:
            raise LaunchError("systemd does not accept the new units: " + "\n".join(ours))


def old_keys(replica, before):
    """The key that balancers use for a replica until the rolling update is over, in a list; empty
    where it does not change."""
    same = [one for one in before.values() if one["name"] == replica["name"]]
    same += [one for one in before.values() if one["port"] == replica["port"]]
    return [one["key"] for one in same[:1] if one["key"] not in ("", replica["key"])]


def prepare(replica, before):
    """Write a replica's new numbered folder; returns its path.

    The new replica also accepts the old key, so that a change of keys loses no request while other
    hosts and balancers still use the old one.
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
    """How many requests a replica is working on, by its gauges; 0 where it does not answer."""
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
    """Wait until a replica has finished its requests, or time is up, if its engine would cut them
    off when it stops."""
    deadline = time.monotonic() + TASK["drain_timeout_s"]
    while (
        replica.get("busy")
        and not replica.get("head")
        and time.monotonic() < deadline
        and active_requests(replica)
    ):
        time.sleep(0.2)


def stop(names, before):
    """Stop replicas; those of `before` are drained first."""
    for name in names:
        if name in before and active(name):
            report_phase(name, "drain")
            drain(before[name])
    if names:
        run("systemctl", "stop", *[unit(name) for name in names])


def retire(names, before):
    """Stop replicas for good, and remove their links, drop-ins and failed states."""
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
    """Make a replica start from this folder from now on."""
    switch_link(current_link(name), os.path.basename(folder))
    if read(TEMPLATE) != TASK["template"]:
        # Replicas that have not moved yet must still start by the old shared unit.
        write(own_unit(name), TASK["template"])
    if not os.path.lexists(drop_in(name)):
        switch_link(drop_in(name), os.path.join(current_link(name), "unit.conf"))


def start(replica):
    """Start a replica's unit; LaunchError where it is quarantined, or another process listens on
    its port."""
    name = replica["name"]
    if is_quarantined(name):
        raise LaunchError("%s is quarantined: deploys/quarantine.py says why, and lifts it" % name,
                          [name])  # fmt: skip
    if not port_is_free(replica["port"]):
        owner = run("ss", "-ltnpH", "sport = :%d" % replica["port"], ok=())
        raise LaunchError("port %d of %s is taken: %s" % (replica["port"], name, owner), [name])
    run("systemctl", "reset-failed", unit(name), ok=())
    run("systemctl", "enable", "--quiet", unit(name))
    # With Type=exec this fails only if the program cannot be executed.
    run("systemctl", "start", unit(name), ok=())


def await_all(replicas, served=lambda replica: None, times=1):
    """Wait until all of these replicas serve, side by side, and call `served` for each that does.

    They were started together, so all have the same time: `times` that of a start. LaunchError
    names each that does not serve, with the log of the first alone: the others often fail for the
    same reason.
    """
    failed = {}
    for replica, error in wait_all(
        [(one, one["key"]) for one in replicas], times * TASK["start_timeout_s"]
    ):
        if error is None:
            served(replica)
        else:
            failed[replica["name"]] = error.problem if failed else str(error)
    if failed:
        raise LaunchError("\n".join(failed.values()), failed)
