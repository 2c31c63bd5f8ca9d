"""Runs on a host, on `python3 -`, after probe.py: moves its replicas from the old to the new.

New files are checked before they replace the old ones, replicas restart one after the other while
others serve, and each must answer a real completion. Where one does not, the old files, the old
engine and the old replicas are put back, and the end of the new one's log is printed.
"""

import base64
import contextlib
import json
import os
import pwd
import shutil
import socket
import sys
import tempfile

from roles.launch.probe import TASK
from roles.launch.serving import LaunchError, active, run, unit, wait

STATE = "/var/lib/llm"
PREVIOUS = STATE + "/previous.json"
LINK = "/opt/llm/engines/current"


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
    # These own the device files of AMD GPUs; NVIDIA's are open to all.
    for group in ("video", "render"):
        run("usermod", "-a", "-G", group, name, ok=())


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
        if paths:
            run("systemd-analyze", "verify", "--man=no", *paths)


def remember(names, paths):
    """Keep what is there now, to be put back; what an unfinished run kept stays as it is."""
    with contextlib.suppress(OSError, ValueError), open(PREVIOUS) as file:
        earlier = json.load(file)
        if not earlier["finished"]:
            return earlier
    previous = {"finished": False, "files": {}, "engine": None, "replicas": {}, "applied": {}}
    for path in paths:
        if os.path.exists(path):
            info = os.stat(path)
            with open(path, "rb") as file:
                content = base64.b64encode(file.read()).decode()
            previous["files"][path] = {"content": content, "mode": oct(info.st_mode & 0o777)[2:]}
    if os.path.islink(LINK):
        previous["engine"] = os.readlink(LINK)
    for name in names:
        previous["replicas"][name] = active(name)
        with contextlib.suppress(OSError), open(applied(name)) as file:
            previous["applied"][name] = file.read().strip()
    save(previous)
    return previous


def save(previous):
    write(PREVIOUS, json.dumps(previous).encode(), mode="600")


def applied(name):
    return os.path.join(STATE, "applied", name)


def known_replicas():
    """Replicas that a unit exists for, running or not."""
    text = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "llm-engine@*.service")
    names = {line.split()[0] for line in text.splitlines() if line.strip()}
    wants = "/etc/systemd/system/multi-user.target.wants"
    with contextlib.suppress(FileNotFoundError):
        names |= {name for name in os.listdir(wants) if name.startswith("llm-engine@")}
    return {name[len("llm-engine@") : -len(".service")] for name in names}


def link_engine(target):
    new = LINK + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    os.symlink(target, new)
    os.replace(new, LINK)


def reload_firewall(wanted):
    if wanted:
        run("systemctl", "enable", "--quiet", "llm-firewall")
        # A restart would stop the rules for a moment; loading them replaces the table at once.
        verb = (
            "reload"
            if run("systemctl", "is-active", "llm-firewall", ok=()) == "active"
            else "start"
        )
        run("systemctl", verb, "llm-firewall")
    elif os.path.exists("/etc/systemd/system/llm-firewall.service"):
        run("systemctl", "disable", "--now", "--quiet", "llm-firewall", ok=())


def stop(names):
    names = list(names)
    if names:
        run("systemctl", "stop", *[unit(name) for name in names])
        run("systemctl", "disable", "--quiet", *[unit(name) for name in names], ok=())


def port_is_free(port):
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def start(replica):
    """Start a replica's unit on a port that nobody else listens on."""
    name = replica["name"]
    with contextlib.suppress(FileNotFoundError):
        os.unlink(applied(name))
    if active(name):
        run("systemctl", "stop", unit(name))
    if not port_is_free(replica["port"]):
        owner = run("ss", "-ltnpH", "sport = :%d" % replica["port"], ok=())
        raise LaunchError("port %d of %s is taken: %s" % (replica["port"], name, owner))
    run("systemctl", "reset-failed", unit(name), ok=())
    run("systemctl", "enable", "--quiet", unit(name))
    # The answer of Type=exec is whether the program could be run at all.
    run("systemctl", "start", unit(name), ok=())


def bring_up(replicas):
    """Start replicas together and wait until all serve; note what each of them serves from."""
    for replica in replicas:
        start(replica)
    for replica in replicas:
        wait(replica["name"], replica["port"], TASK["model"], TASK["key"])
        write(applied(replica["name"]), replica["digest"].encode())


def changed(replica):
    return not runs_from(replica["name"], replica["digest"])


def roll(previous):
    """Bring up what changed: together where nothing serves here, else one after the other."""
    replicas = [replica for replica in TASK["replicas"] if changed(replica)]
    if any(previous["replicas"].values()):
        for replica in replicas:
            bring_up([replica])
    else:
        bring_up(replicas)


def install(previous):
    wanted = {file["path"] for file in TASK["files"]}
    for file in TASK["files"]:
        write(file["path"], base64.b64decode(file["content"]), *file["state"].split()[:3])
    link_engine(TASK["engine"])
    run("systemctl", "daemon-reload")
    reload_firewall(TASK["firewall"])
    leftover = [name for name in known_replicas() if name not in TASK["names"]]
    stop(leftover)
    for path in set(previous["files"]) - wanted:
        os.unlink(path)
    for name in leftover:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(applied(name))


def put_back(previous):
    """The old files, engine and replicas again; returns in words what serves now."""
    for path in {file["path"] for file in TASK["files"]} - set(previous["files"]):
        if "/replicas/" in path:
            os.unlink(path)
    for path, file in previous["files"].items():
        write(path, base64.b64decode(file["content"]), file["mode"])
    if previous["engine"]:
        link_engine(previous["engine"])
    run("systemctl", "daemon-reload")
    if any(path.endswith(".nft") for path in previous["files"]):
        run("systemctl", "reload", "llm-firewall", ok=())
    before = [name for name, was_active in previous["replicas"].items() if was_active]
    stop([name for name in TASK["names"] if name not in before])
    if not before:
        return "Nothing served here before; mend it and run again."
    restarted = [name for name in before if not runs_from(name, previous["applied"].get(name))]
    for name in restarted:
        run("systemctl", "reset-failed", unit(name), ok=())
        run("systemctl", "enable", "--quiet", unit(name), ok=())
        run("systemctl", "restart", unit(name), ok=())
    # Whoever looks next, a balancer for one, must find the old service, not one that starts.
    try:
        for name in restarted:
            wait(name, *old_settings(name))
            write(applied(name), previous["applied"].get(name, "").encode())
    except LaunchError as error:
        return "The old settings are back, but: %s" % error
    return "The old settings are back, and serve: %s." % ", ".join(before)


def runs_from(name, digest):
    """Whether a replica is up and was last seen to serve from the settings with this digest."""
    try:
        with open(applied(name)) as file:
            return bool(digest) and active(name) and file.read().strip() == digest
    except OSError:
        return False


def old_settings(name):
    """Port, model and key of a replica, from the files that were put back."""
    with open("/etc/llm/replicas/%s.yaml" % name) as file:
        options = dict(line.rstrip().split(": ", 1) for line in file if ": " in line)
    with open("/etc/llm/secrets/engine.env") as file:
        secrets = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    return int(options["port"]), options["served-model-name"], secrets["VLLM_API_KEY"].strip('"')


def main():
    os.makedirs(os.path.join(STATE, "applied"), mode=0o755, exist_ok=True)
    paths = {file["path"] for file in TASK["files"]}
    names = known_replicas() | set(TASK["names"])
    for name in names:
        paths |= {"/etc/llm/replicas/%s.%s" % (name, suffix) for suffix in ("env", "yaml")}
    try:
        ensure_user(TASK["user"])
        if not os.path.exists(LINK):
            link_engine(TASK["engine"])
        check(TASK["files"])
    except (LaunchError, OSError) as error:
        sys.exit("nothing was changed: %s" % error)
    previous = remember(names, paths)
    try:
        install(previous)
        roll(previous)
    except (LaunchError, OSError) as error:
        outcome = put_back(previous)
        previous["finished"] = True
        save(previous)
        sys.exit("%s\n%s" % (error, outcome))
    previous["finished"] = True
    save(previous)


if __name__ == "__main__":
    main()
