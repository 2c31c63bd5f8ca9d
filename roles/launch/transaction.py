"""The transaction that moves a host's replicas; runs on the host by `python3 -`, after on_host.py.

New units and rules are checked before they replace the old ones. A replica's new folder is written
beside the one that it runs from. Its link is switched only when it moves: a replica that crashes
before that starts what it ran. Each replica must answer a real completion. Where one does not, all
replicas that this run moved are restored, and the end of the failed one's log is printed. The steps
after the move never stop a replica that was proved to serve; where one of them fails, the next run
finishes it.
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
from roles.launch.leftovers import remove_leftovers
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
# How the line begins that names replicas that did not serve, once the previous ones serve again.
RESTORED = "put back, as these did not serve: "


def devices(replica):
    """A replica's GPUs by index, and by UUID where the host's devices are named so."""
    return {str(one) for one in (*replica.get("gpus", ()), *replica.get("devices", ()))}


def resource_conflicts(step, before):
    """Old replicas that use a GPU or the port of a replica of this step."""
    own, ports = {one["name"] for one in step}, {one["port"] for one in step}
    gpus = set().union(*map(devices, step))
    return [
        name
        for name, old in before.items()
        if name not in own and (old["port"] in ports or devices(old) & gpus)
    ]


def running_conflicts(step, before, done):
    """Old replicas that still run and use a GPU or the port of a replica of this step."""
    return [name for name in resource_conflicts(step, before) if name not in done and active(name)]


def move(before):
    """Move the replicas of the task step by step; each must serve before the next step begins."""
    by_name = {replica["name"]: replica for replica in TASK["replicas"]}
    folders = {name: prepare(replica, before) for name, replica in by_name.items()}
    done = set()
    for names in TASK["steps"]:
        step = [by_name[name] for name in names]
        stop([*running_conflicts(step, before, done), *[n for n in names if active(n)]], before)
        for name in names:
            switch_to(name, folders[name])
        run("systemctl", "daemon-reload")
        for replica in step:
            start(replica)
        await_all(step, lambda replica: record(replica, folders[replica["name"]]))
        done |= set(names)


def record(replica, folder):
    """Record in the manifest that a replica was proved to serve from a folder."""
    entry = dict(replica["manifest"], folder=folder, run=TASK["run"])
    save_manifest({**read_manifest(), replica["name"]: entry})


def save_manifest(replicas):
    data = {"schema": 1, "replicas": [replicas[name] for name in sorted(replicas)]}
    write(MANIFEST, json.dumps(data, indent=1) + "\n")


def finish(before):
    """Retire the replicas of this step; once only planned replicas run, write the files that they
    share.

    Other replicas that left the plan go on serving from their own files, guarded by the firewall:
    balancers may still send them requests, and a later step or run retires them. The file
    UNFINISHED tells the next run that something is left to do.
    """
    write(UNFINISHED, TASK["run"] + "\n")
    planned, left_out = TASK["planned"], set(TASK["left_out"])
    gone = {*TASK["retire"], *replaced_replicas(before)} - left_out
    retire(sorted(gone), before)
    kept = {name: one for name, one in read_manifest().items() if name not in gone}
    save_manifest(kept)
    moved = all(digest_of(running_folder(name)) == digest for name, digest in planned.items())
    if not moved or known_replicas() - gone - set(planned) - left_out:
        return
    kept = {name: one for name, one in kept.items() if name in planned or name in left_out}
    save_manifest(kept)
    install_shared_unit(planned)
    apply_firewall(TASK["firewall"])
    remove_old_folders(kept)
    remove(UNFINISHED)


def replaced_replicas(before):
    """Stopped replicas outside the plan whose GPU or port a planned one uses: a boot must not start
    them."""
    planned = TASK["planned"]
    now = [one for name, one in read_manifest().items() if name in planned]
    return [
        one for one in resource_conflicts(now, before) if one not in planned and not active(one)
    ]


def install_shared_unit(planned):
    """Install the new shared unit, once no replica runs by an older one."""
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
        # Their links in multi-user.target.wants point to the copies, which are gone now.
        run("systemctl", "reenable", "--quiet", *[unit(name) for name in own])


def apply_firewall(files):
    """Write and load the firewall's rules; remove them where the task has none."""
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
    # A restart would remove the rules for a moment; a reload replaces the table atomically. It is
    # done even if no file changed, as an earlier run may have ended between writing and loading.
    up = run("systemctl", "is-active", "llm-firewall", ok=()) == "active"
    run("systemctl", "reload" if up else "start", "llm-firewall")


def remove_old_folders(kept):
    """Remove folders that no replica needs, engines that none uses, and what else is left over.

    The newest two folders of a replica stay.
    """
    gone = []
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
            gone.append(name)
    remove_old_engines({one["version"] for one in kept.values()})
    remove_leftovers(gone)


def remove_old_engines(used):
    """Keep `keep` complete versions of each engine: those in use, then the newest."""
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
    """Restore every replica as it was; returns whether all serve, and a sentence about it."""
    if TASK["firewall_during"]:
        with contextlib.suppress(LaunchError, OSError):
            apply_firewall(rules)
    served = [name for name in sorted(before) if should_run(name)]
    if not served:
        good = [name for name in sorted(read_manifest()) if active(name)]
        retire([name for name in TASK["planned"] if name not in good], {})
        serves = "; these serve: %s" % ", ".join(good) if good else ""
        return False, "Nothing served here before%s. Repair it and run again." % serves
    # Written only if it differs: the disk may be full.
    if read_manifest() != manifest:
        save_manifest(manifest)
    retire(sorted({one["name"] for one in TASK["replicas"]} & known_replicas() - set(before)), {})
    moved = [name for name in served if not is_restored(name, before[name])]
    # All of them stop first: one may use a GPU that another needs.
    stop(moved, {})
    for name in moved:
        restore_link(name, before[name])
    run("systemctl", "daemon-reload")
    try:
        for name in moved:
            start(before[name])
        # A balancer that asks next must find replicas that serve, not ones that start.
        await_restored([before[name] for name in moved])
    except LaunchError as error:
        return False, "The old settings are back, but: %s" % error
    return True, "The old settings are back, and serve: %s." % ", ".join(served)


def await_restored(replicas):
    """Wait until replicas that were put back serve; LaunchError where one does not.

    Parts of a replica over several hosts restart until all of them are put back, and other hosts
    may wait for the new ones as long as a start takes. Its head alone waits for that: whether the
    replica serves is not known to the others.
    """
    grouped = [one for one in replicas if one.get("rank") is not None]
    members = [one for one in grouped if one["rank"] > 0]
    if ended := [one["name"] for one in members if not active(one["name"])]:
        raise LaunchError("the parts %s do not run" % ", ".join(ended), ended)
    waited = [dict(one, may_restart=one in grouped) for one in replicas if one not in members]
    await_all(waited, times=2 if len(grouped) > len(members) else 1)


def is_restored(name, old):
    """Whether a replica runs from the recorded folder, and will start from it again."""
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
    """Hold the host's lock: a deploy whose connection broke may still be running there."""
    os.makedirs(STATE, mode=0o755, exist_ok=True)
    # Only who has the lock may write into the file: it names the run that is at work.
    with open(os.path.join(STATE, "lock"), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(
                "nothing was changed: another deploy is still at work on this host, perhaps one "
                "whose connection broke; wait for it (at most %d s each time replicas start) and "
                "run again" % TASK["start_timeout_s"]
            )
        file.truncate(0)
        file.write(TASK["run"] + "\n")
        file.flush()
        yield


def describe_error(error):
    """An error as a message; a full disk gets its place and a remedy."""
    if getattr(error, "errno", None) == errno.ENOSPC:
        place = error.filename or "%s, /etc or /var" % tempfile.gettempdir()
        return "no space is left (%s): make room, see df -h, and run again" % place
    return error if isinstance(error, (LaunchError, OSError)) else repr(error)


def fail_move(error, before, manifest, rules):
    """Restore everything, and exit with the reason."""
    try:
        whole, outcome = restore_previous(before, manifest, rules)
    except Exception as another:
        whole, outcome = False, "Not everything could be restored: %s" % describe_error(another)
    failed = getattr(error, "replicas", ())
    if whole and failed:
        print(RESTORED + " ".join(failed))
    sys.exit("%s\n%s" % (describe_error(error), outcome))


def fail_finish(error):
    """Exit with what is left to do. Nothing is restored: the new replicas serve, and the old ones
    may be gone."""
    moved = ", ".join(name for step in TASK["steps"] for name in step)
    serve = "These serve as planned: %s. " % moved if moved else "Replicas serve on. "
    sys.exit("%s\n%sWhat comes after a move is not finished: repair it and run again."
             % (describe_error(error), serve))  # fmt: skip


def main():
    """Run the whole transaction, or restore what it moved and exit with the reason."""
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
        # On any error: a host must not be left between old and new replicas.
        except Exception as error:
            fail_move(error, before, manifest, rules)
        try:
            finish(before)
        except Exception as error:
            fail_finish(error)


if __name__ == "__main__":
    main()
