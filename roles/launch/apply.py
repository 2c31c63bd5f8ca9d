"""Runs on a host, on `python3 -`, after probe.py: moves its replicas from the old to the new.

New files are checked before they replace the old ones, replicas restart one after the other while
others serve, and each must answer a real completion. Where one does not, the old files, the old
engine and the old replicas are put back, and the end of the new one's log is printed.
"""

import base64
import contextlib
import errno
import fcntl
import json
import os
import pwd
import re
import shutil
import socket
import sys
import tempfile

from roles.host.probe import TASK
from roles.host.serving import LaunchError, active, run, unit, wait

STATE = "/var/lib/llm"
ENGINES = "/opt/llm/engines"
REPLICAS = "/etc/llm/replicas"
UNITS = "/etc/systemd/system"
FIREWALL = ("/etc/llm/firewall.nft", UNITS + "/llm-firewall.service")


def write(path, data, mode="644", owner="root", group="root"):
    """Replace a file by a rename, so that nobody ever reads half of it."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    handle, new = tempfile.mkstemp(dir=folder, prefix=".new-")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    shutil.chown(new, owner, group)
    os.chmod(new, int(mode, 8))
    os.replace(new, path)


def ensure_user(name):
    try:
        pwd.getpwnam(name)
    except KeyError:
        run("useradd", "--system", "--user-group", "--home-dir", STATE, "--shell",
            "/usr/sbin/nologin", name)  # fmt: skip
    groups = unit_groups()
    for group in groups:
        run("groupadd", "--system", "--force", group)
        run("usermod", "-a", "-G", group, name)
    missing = set(groups) - set(run("id", "-nG", name).split())
    if missing:
        raise LaunchError("user %s is not in the groups %s, which own the GPUs' device files"
                          % (name, ", ".join(sorted(missing))))  # fmt: skip


def unit_groups():
    """The groups that the unit wants for its processes: AMD's device files belong to them."""
    for file in TASK["files"]:
        if file["path"] == UNITS + "/llm-engine@.service":
            text = base64.b64decode(file["content"]).decode()
            named = re.search("^SupplementaryGroups=(.*)", text, re.MULTILINE)
            return named.group(1).split() if named else []
    return []


def check(files):
    """Let systemd and nft read the new files, staged, before they replace the old ones."""
    with tempfile.TemporaryDirectory() as stage:
        for file in files:
            path = os.path.join(stage, os.path.basename(file["path"]))
            with open(path, "wb") as staged:
                staged.write(base64.b64decode(file["content"]))
            if path.endswith(".nft"):
                run("nft", "--check", "-f", path)
        paths = []
        for name in os.listdir(stage):
            if name.endswith(".service"):
                # A template can be verified only as one of its instances.
                paths.append(os.path.join(stage, name.replace("@.", "@check.")))
                os.rename(os.path.join(stage, name), paths[-1])
        said = run("systemd-analyze", "verify", "--man=no", *paths) if paths else ""
        # Its exit status is 0 for a key or a value that it does not know.
        ours = [line for line in said.splitlines() if "llm-" in line]
        if ours:
            raise LaunchError("systemd does not accept the new units: " + "\n".join(ours))


def remember(names, paths):
    """Keep what is there now, to be put back; what an unfinished run kept stays as it is."""
    earlier = unfinished()
    if earlier:
        return earlier
    previous = {
        "finished": False,
        "target": {replica["name"]: replica["digest"] for replica in TASK["replicas"]},
        "files": {path: kept(path) for path in paths if os.path.exists(path)},
        "engine": os.readlink(link()) if os.path.islink(link()) else None,
        "replicas": {name: active(name) for name in names},
        "applied": {name: digest_of(name) for name in names},
        "firewall": run("systemctl", "is-active", "llm-firewall", ok=()) == "active",
    }
    save(previous)
    return previous


def unfinished():
    """What a run kept that was killed before its replicas served; None where there is none."""
    try:
        with open(record()) as file:
            earlier = json.load(file)
    except (OSError, ValueError):
        return None
    target = earlier.get("target", {})
    served = all(runs_from(name, digest) for name, digest in target.items())
    return None if earlier.get("finished") or (target and served) else earlier


def kept(path):
    with open(path, "rb") as file:
        content = base64.b64encode(file.read()).decode()
    return {"content": content, "mode": oct(os.stat(path).st_mode & 0o777)[2:]}


def record():
    return os.path.join(STATE, "previous.json")


def save(previous):
    write(record(), json.dumps(previous).encode(), mode="600")


def link():
    return os.path.join(ENGINES, "current")


def digest_of(name):
    """The digest of what a replica was last seen to serve from, or None."""
    try:
        with open(applied(name)) as file:
            return file.read().strip()
    except OSError:
        return None


def runs_from(name, digest):
    """Whether a replica is up and was last seen to serve from the settings with this digest."""
    return bool(digest) and digest_of(name) == digest and active(name)


def applied(name):
    return os.path.join(STATE, "applied", name)


def known_replicas():
    """Replicas that a unit exists for, running or not."""
    text = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "llm-engine@*.service")
    names = {line.split()[0] for line in text.splitlines() if line.strip()}
    wants = os.path.join(UNITS, "multi-user.target.wants")
    with contextlib.suppress(FileNotFoundError):
        names |= {name for name in os.listdir(wants) if name.startswith("llm-engine@")}
    return {name[len("llm-engine@") : -len(".service")] for name in names}


def link_engine(target):
    new = link() + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    os.symlink(target, new)
    os.replace(new, link())


def reload_firewall(wanted):
    if wanted:
        run("systemctl", "enable", "--quiet", "llm-firewall")
        # A restart would stop the rules for a moment; loading them replaces the table at once.
        up = run("systemctl", "is-active", "llm-firewall", ok=()) == "active"
        run("systemctl", "reload" if up else "start", "llm-firewall")
    elif os.path.exists(FIREWALL[1]):
        run("systemctl", "disable", "--now", "--quiet", "llm-firewall", ok=())


def stop(names):
    """Stop replicas for good; systemd forgets that one had failed."""
    units = [unit(name) for name in names]
    if units:
        run("systemctl", "stop", *units)
        run("systemctl", "disable", "--quiet", *units, ok=())
        run("systemctl", "reset-failed", *units, ok=())


def port_is_free(port):
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def start(replica):
    """Start a replica's unit on a port that nobody else listens on."""
    name = replica["name"]
    forget(name)
    if active(name):
        run("systemctl", "stop", unit(name))
    if not port_is_free(replica["port"]):
        owner = run("ss", "-ltnpH", "sport = :%d" % replica["port"], ok=())
        raise LaunchError("port %d of %s is taken: %s" % (replica["port"], name, owner))
    run("systemctl", "reset-failed", unit(name), ok=())
    run("systemctl", "enable", "--quiet", unit(name))
    # The answer of Type=exec is whether the program could be run at all.
    run("systemctl", "start", unit(name), ok=())


def forget(name):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(applied(name))


def bring_up(replicas):
    """Start replicas together and wait until all serve; note what each of them serves from."""
    failed = []
    for replica in replicas:
        start(replica)
    for replica in replicas:
        try:
            wait(replica["name"], replica["port"], TASK["model"], TASK["key"])
            write(applied(replica["name"]), replica["digest"].encode())
        except LaunchError as error:
            failed.append(str(error))
    if failed:
        raise LaunchError("\n".join(failed))


def roll(previous):
    """Bring up what changed: together where nothing serves here, else one after the other."""
    todo = [one for one in TASK["replicas"] if not runs_from(one["name"], one["digest"])]
    if not any(previous["replicas"].values()):
        return bring_up(todo)
    done = set()
    for replica in todo:
        make_room(replica, previous, done)
        bring_up([replica])
        done.add(replica["name"])


def make_room(replica, previous, done):
    """Stop old replicas that hold a GPU or the port that a new one needs."""
    # By index and, where a host's devices go by their UUIDs, by these.
    wanted = {str(index) for index in replica["gpus"]} | set(replica.get("devices", ()))
    for name in previous["replicas"]:
        if name in done or name == replica["name"] or not active(name):
            continue
        gpus, port = holdings(name, previous)
        if port == replica["port"] or gpus & wanted:
            run("systemctl", "stop", unit(name))
            forget(name)


def holdings(name, previous):
    """The GPUs and the port of a replica as its old files say."""
    text = ""
    for suffix in ("env", "yaml"):
        old = previous["files"].get("%s/%s.%s" % (REPLICAS, name, suffix))
        text += base64.b64decode(old["content"]).decode() if old else ""
    gpus = re.search(r'^(?:CUDA|HIP)_VISIBLE_DEVICES="([^"]*)"', text, re.MULTILINE)
    port = re.search(r"^port: (\d+)", text, re.MULTILINE)
    named = gpus.group(1).split(",") if gpus else []
    return set(filter(None, named)), int(port.group(1)) if port else None


def install(previous):
    """Put the new files, the new engine and the rules in place; end what left the plan."""
    wanted = {file["path"] for file in TASK["files"]}
    for file in TASK["files"]:
        write(file["path"], base64.b64decode(file["content"]), *file["state"].split()[:3])
    link_engine(TASK["engine"])
    run("systemctl", "daemon-reload")
    reload_firewall(TASK["firewall"])
    leftover = [name for name in known_replicas() if name not in TASK["names"]]
    stop(leftover)
    for path in set(previous["files"]) - wanted - (set() if TASK["firewall"] else set(FIREWALL)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    for name in leftover:
        forget(name)


def put_back(previous):
    """The old files, engine and replicas again; returns in words what serves now."""
    before = [name for name, was_active in previous["replicas"].items() if was_active]
    if not before:
        good = [one["name"] for one in TASK["replicas"] if runs_from(one["name"], one["digest"])]
        stop([name for name in TASK["names"] if name not in good])
        serves = "; these serve: %s" % ", ".join(good) if good else ""
        return "Nothing served here before%s. Mend it and run again." % serves
    for path in {file["path"] for file in TASK["files"]} - set(previous["files"]):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    for path, file in previous["files"].items():
        write(path, base64.b64decode(file["content"]), file["mode"])
    if previous["engine"]:
        link_engine(previous["engine"])
    run("systemctl", "daemon-reload")
    with contextlib.suppress(LaunchError):
        reload_firewall(previous["firewall"])
    return restore(previous, before)


def restore(previous, before):
    """Start again what served before and does not now, and wait for it."""
    stop([name for name in TASK["names"] if name not in before])
    restarted = [name for name in before if not runs_from(name, previous["applied"].get(name))]
    # All of them end first: one may hold a GPU that another had.
    run("systemctl", "stop", *[unit(name) for name in restarted], ok=())
    for name in restarted:
        run("systemctl", "reset-failed", unit(name), ok=())
        run("systemctl", "enable", "--quiet", unit(name), ok=())
        run("systemctl", "start", unit(name), ok=())
    # Whoever looks next, a balancer for one, must find the old service, not one that starts.
    try:
        for name in restarted:
            wait(name, *old_settings(name))
            write(applied(name), (previous["applied"].get(name) or "").encode())
    except LaunchError as error:
        return "The old settings are back, but: %s" % error
    return "The old settings are back, and serve: %s." % ", ".join(before)


def old_settings(name):
    """Port, model and key of a replica, from the files that were put back."""
    with open("%s/%s.yaml" % (REPLICAS, name)) as file:
        options = dict(line.rstrip().split(": ", 1) for line in file if ": " in line)
    with open("/etc/llm/secrets/engine.env") as file:
        secrets = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    return int(options["port"]), options["served-model-name"], secrets["VLLM_API_KEY"].strip('"')


def remove_old_engines():
    """Keep the newest `keep` whole versions, the current one among them."""
    current = os.readlink(link())
    marks = []
    for name in os.listdir(ENGINES):
        folder = os.path.join(ENGINES, name)
        mark = os.path.join(folder, ".complete")
        if name != current and not os.path.islink(folder) and os.path.exists(mark):
            marks.append((os.path.getmtime(mark), folder))
    for _, folder in sorted(marks, reverse=True)[TASK["keep"] - 1 :]:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def alone():
    """Let one deploy at a time work on a host: one whose connection broke may still be at it."""
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


def in_words(error):
    """An error for a person; the system's own word for a full disk names no place."""
    if getattr(error, "errno", None) == errno.ENOSPC:
        place = error.filename or "%s, /etc or /var" % tempfile.gettempdir()
        return "no space is left (%s): make room, see df -h, and run again" % place
    return error


def main():
    """Do it all, or put everything back and say why on the standard error."""
    os.makedirs(os.path.join(STATE, "applied"), mode=0o755, exist_ok=True)
    with alone():
        try:
            ensure_user(TASK["user"])
            if not os.path.exists(link()):
                link_engine(TASK["engine"])
            check(TASK["files"])
        except (LaunchError, OSError) as error:
            sys.exit("nothing was changed: %s" % in_words(error))
        previous = remember(*everything())
        try:
            install(previous)
            roll(previous)
        except (LaunchError, OSError) as error:
            outcome = put_back(previous)
            finish(previous)
            sys.exit("%s\n%s" % (in_words(error), outcome))
        finish(previous)
        remove_old_engines()


def everything():
    """All replicas that are or will be on this host, and all paths that launch may write."""
    names = known_replicas() | set(TASK["names"])
    paths = {file["path"] for file in TASK["files"]} | set(FIREWALL)
    for name in names:
        paths |= {"%s/%s.%s" % (REPLICAS, name, suffix) for suffix in ("env", "yaml")}
    return names, paths


def finish(previous):
    previous["finished"] = True
    save(previous)


if __name__ == "__main__":
    main()
