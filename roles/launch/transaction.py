"""Runs on a host, on `python3 -`, after on_host.py: moves replicas from the old to the new.

New units and rules are checked before they replace the old ones. A replica's new folder is written
beside the one that it runs from, and its link is switched when it moves, not before: one that
crashes meanwhile starts what it ran. Each replica must answer a real completion. Where one does
not, every replica that this run moved goes back to the folder it ran from, and the end of the new
one's log is printed. What comes after all have moved ends no replica that was proved to serve:
where it fails, the next run finishes it.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import sys
import tempfile

from roles.host.legacy import LEGACY_FOLDER, LEGACY_MARK, LEGACY_SECRETS
from roles.host.probe import TASK
from roles.host.serving import MANIFEST, LaunchError, active, read_manifest, run, unit
from roles.launch.on_host import (
    NUMBER,
    REPLICAS,
    STATE,
    TEMPLATE,
    UNFINISHED,
    UNITS,
    await_all,
    check_files,
    current_link,
    digest_of,
    drop_in,
    ensure_user,
    known_replicas,
    linked_folder,
    own_unit,
    prepare,
    read,
    recorded_replicas,
    remove,
    replica_folder,
    retire,
    running_folder,
    should_run,
    start,
    starts_by_own_unit,
    stop,
    switch_to,
    write,
)

ENGINES = "/opt/llm/engines"
FIREWALL_UNIT = UNITS + "/llm-firewall.service"
# Begins the line that names who did not serve, where everything is as before again.
RESTORED = "put back, as these did not serve: "


def devices(replica):
    """A replica's GPUs by index and, where a host's devices go by their UUIDs, by these."""
    return {str(one) for one in (*replica.get("gpus", ()), *replica.get("devices", ()))}


def overlapping(step, before):
    """Old replicas that have a GPU or the port of one of this step."""
    own, ports = {one["name"] for one in step}, {one["port"] for one in step}
    gpus = set().union(*map(devices, step))
    return [
        name
        for name, old in before.items()
        if name not in own and (old["port"] in ports or devices(old) & gpus)
    ]


def conflicting(step, before, done):
    """Old replicas that hold a GPU or the port that a new one of this step needs."""
    return [name for name in overlapping(step, before) if name not in done and active(name)]


def move(before):
    """Move the replicas of the task step by step; each must serve before the next step begins."""
    by_name = {replica["name"]: replica for replica in TASK["replicas"]}
    folders = {name: prepare(replica, before) for name, replica in by_name.items()}
    done = set()
    for names in TASK["steps"]:
        step = [by_name[name] for name in names]
        stop([*conflicting(step, before, done), *[n for n in names if active(n)]], before)
        for name in names:
            switch_to(name, folders[name])
        run("systemctl", "daemon-reload")
        for replica in step:
            start(replica)
        await_all(step, lambda replica: record(replica, folders[replica["name"]]))
        done |= set(names)


def record(replica, folder):
    """Note in the manifest what a replica was proved to serve from."""
    entry = dict(replica["manifest"], folder=folder, run=TASK["run"])
    save_manifest({**read_manifest(), replica["name"]: entry})


def save_manifest(replicas):
    data = {"schema": 1, "replicas": [replicas[name] for name in sorted(replicas)]}
    write(MANIFEST, json.dumps(data, indent=1) + "\n")


def finish(before):
    """End what leaves in this turn; once all of the plan runs and nothing else, write what all
    replicas share.

    Whatever else left the plan serves on, from its own files and guarded: balancers may ask it
    still, and the turn in which they do not is a later one, or a later run's. UNFINISHED tells
    the next run that there is something left to do.
    """
    write(UNFINISHED, TASK["run"] + "\n")
    planned = TASK["planned"]
    gone = {*TASK["retire"], *replaced(before)}
    retire(sorted(gone), before)
    kept = {name: one for name, one in read_manifest().items() if name not in gone}
    save_manifest(kept)
    moved = all(digest_of(running_folder(name)) == digest for name, digest in planned.items())
    if not moved or known_replicas() - gone - set(planned):
        return
    kept = {name: one for name, one in kept.items() if name in planned}
    save_manifest(kept)
    install_shared_unit(planned)
    apply_firewall(TASK["firewall"])
    remove_old_folders(kept)
    remove(UNFINISHED)


def replaced(before):
    """Replicas that left the plan and ended, as a planned one has their GPU or port: a boot must
    not start them beside it."""
    planned = TASK["planned"]
    now = [one for name, one in read_manifest().items() if name in planned]
    return [one for one in overlapping(now, before) if one not in planned and not active(one)]


def install_shared_unit(planned):
    """Have all replicas run by one shared unit, now that none runs by an older one."""
    if planned and read(TEMPLATE) != TASK["template"]:
        write(TEMPLATE, TASK["template"])
    own = [one for one in planned if os.path.exists(own_unit(one)) or starts_by_own_unit(one)]
    for name in planned:
        remove(own_unit(name))
        for suffix in ("env", "yaml"):
            remove("%s/%s.%s" % (LEGACY_FOLDER, name, suffix))
    remove(LEGACY_SECRETS)
    remove(LEGACY_MARK)
    run("systemctl", "daemon-reload")
    if own:
        # Their links in multi-user.target.wants lead to the copies that are gone now.
        run("systemctl", "reenable", "--quiet", *[unit(name) for name in own])


def apply_firewall(files):
    """Put the firewall's rules in place; none where the task has none."""
    if not files:
        if os.path.exists(FIREWALL_UNIT):
            run("systemctl", "disable", "--now", "--quiet", "llm-firewall", ok=())
            remove(FIREWALL_UNIT)
        return
    changed = [path for path, text in files.items() if read(path) != text]
    for path in changed:
        write(path, files[path])
    if FIREWALL_UNIT in changed:
        run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--quiet", "llm-firewall")
    # A restart would stop the rules for a moment; loading them replaces the table at once. It is
    # done where no file changed, too: a run may have ended between writing and loading.
    up = run("systemctl", "is-active", "llm-firewall", ok=()) == "active"
    run("systemctl", "reload" if up else "start", "llm-firewall")


def remove_old_folders(kept):
    """Remove folders that no replica runs from or went back to, and engines that none names."""
    for name in os.listdir(REPLICAS):
        if not os.path.isdir(replica_folder(name)):
            continue
        numbers = sorted(int(one) for one in os.listdir(replica_folder(name)) if NUMBER.match(one))
        ours = {running_folder(name), linked_folder(name), kept.get(name, {}).get("folder")}
        spare = [str(number) for number in numbers[:-2]] if name in kept else map(str, numbers)
        for number in spare:
            folder = os.path.join(replica_folder(name), number)
            if folder not in ours:
                shutil.rmtree(folder, ignore_errors=True)
        if name not in kept and not active(name):
            shutil.rmtree(replica_folder(name), ignore_errors=True)
    remove_old_engines({one["version"] for one in kept.values()})


def remove_old_engines(used):
    """Keep the newest `keep` whole versions of each engine, those in use among them."""
    kinds = {}
    for name in os.listdir(ENGINES):
        mark = os.path.join(ENGINES, name, ".complete")
        if os.path.exists(mark) and not os.path.islink(os.path.join(ENGINES, name)):
            kinds.setdefault(name.split("-")[0], []).append((os.path.getmtime(mark), name))
    for versions in kinds.values():
        newest = [name for _, name in sorted(versions, reverse=True)]
        ordered = [n for n in newest if n in used] + [n for n in newest if n not in used]
        for name in ordered[max(TASK["keep"], len(used & set(newest))) :]:
            shutil.rmtree(os.path.join(ENGINES, name), ignore_errors=True)


def restore_previous(before, manifest, rules):
    """Every replica as it was before: whether all serve again, and a sentence about what does."""
    if TASK["firewall_during"]:
        with contextlib.suppress(LaunchError, OSError):
            apply_firewall(rules)
    served = [name for name in sorted(before) if should_run(name)]
    if not served:
        good = [name for name in sorted(read_manifest()) if active(name)]
        retire([name for name in TASK["planned"] if name not in good], {})
        serves = "; these serve: %s" % ", ".join(good) if good else ""
        return False, "Nothing served here before%s. Repair it and run again." % serves
    # A full disk may be why nothing goes on.
    if read_manifest() != manifest:
        save_manifest(manifest)
    retire(sorted({one["name"] for one in TASK["replicas"]} & known_replicas() - set(before)), {})
    moved = [name for name in served if not is_restored(name, before[name])]
    # All of them end first: one may hold a GPU that another had.
    stop(moved, {})
    for name in moved:
        restore_link(name, before[name])
    run("systemctl", "daemon-reload")
    try:
        for name in moved:
            start(before[name])
        # Whoever looks next, a balancer for one, must find the old service, not one that starts.
        await_all([before[name] for name in moved])
    except LaunchError as error:
        return False, "The old settings are back, but: %s" % error
    return True, "The old settings are back, and serve: %s." % ", ".join(served)


def is_restored(name, old):
    """Whether a replica's process runs from what is recorded, and would start from it again."""
    if not active(name):
        return False
    if old["folder"] is None:
        return linked_folder(name) is None and running_folder(name) is None
    return running_folder(name) == linked_folder(name) == old["folder"]


def restore_link(name, old):
    if old["folder"] is not None:
        switch_to(name, old["folder"])
        return
    remove(current_link(name))
    remove(own_unit(name))
    shutil.rmtree(os.path.dirname(drop_in(name)), ignore_errors=True)


@contextlib.contextmanager
def exclusive_lock():
    """Let one deploy at a time work on a host: one whose connection broke may still be at it."""
    os.makedirs(STATE, mode=0o755, exist_ok=True)
    with open(os.path.join(STATE, "lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(
                "nothing was changed: another deploy is still at work on this host, perhaps one "
                "whose connection broke; wait for it (at most %d s a replica) and run again"
                % TASK["start_timeout_s"]
            )
        yield


def describe_error(error):
    """An error for a person; the system's own word for a full disk names no place, and Python's
    for what is missing names nothing else."""
    if getattr(error, "errno", None) == errno.ENOSPC:
        place = error.filename or "%s, /etc or /var" % tempfile.gettempdir()
        return "no space is left (%s): make room, see df -h, and run again" % place
    return error if isinstance(error, (LaunchError, OSError)) else repr(error)


def fail_move(error, before, manifest, rules):
    """Put everything back, and say why on the standard error."""
    try:
        whole, outcome = restore_previous(before, manifest, rules)
    except Exception as another:
        whole, outcome = False, "Not all could be put back: %s" % describe_error(another)
    failed = getattr(error, "replicas", ())
    if whole and failed:
        print(RESTORED + " ".join(failed))
    sys.exit("%s\n%s" % (describe_error(error), outcome))


def fail_finish(error):
    """Say what is left to do; nothing is put back: the new was proved, the old may be gone."""
    moved = ", ".join(name for step in TASK["steps"] for name in step)
    serve = "These serve as planned: %s. " % moved if moved else "Replicas serve on. "
    sys.exit("%s\n%sWhat comes after a move is not finished: repair it and run again."
             % (describe_error(error), serve))  # fmt: skip


def main():
    """Do it all, or put back what moved, and say why on the standard error."""
    with exclusive_lock():
        try:
            ensure_user(TASK["user"], TASK["groups"])
            check_files()
            before, manifest = recorded_replicas(), read_manifest()
        except Exception as error:
            sys.exit("nothing was changed: %s" % describe_error(error))
        rules = {path: text for path in TASK["firewall_during"] if (text := read(path)) is not None}
        try:
            if TASK["firewall_during"]:
                apply_firewall(TASK["firewall_during"])
            if not os.path.exists(TEMPLATE) and TASK["planned"]:
                write(TEMPLATE, TASK["template"])
            move(before)
        # Whatever it is: a host must not be left between the old and the new.
        except Exception as error:
            fail_move(error, before, manifest, rules)
        try:
            finish(before)
        except Exception as error:
            fail_finish(error)


if __name__ == "__main__":
    main()
