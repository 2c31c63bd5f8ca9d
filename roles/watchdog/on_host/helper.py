"""The root helper of the watchdog: takes a command of each connection, judges it, and does it.

A command is one line of JSON: what to do, and the name of a replica that the host's manifest has.
No text of it reaches a shell, a path or an option but that name and the reason of a quarantine.
"""

import contextlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import time

from roles.host.probe import parsed, plain
from roles.watchdog.on_host.evidence import (
    HANGS,
    collect,
    first_bytes,
    members_of_unit,
    output,
)
from roles.watchdog.on_host.files import (
    DAMAGED,
    MOST_BYTES,
    locked,
    read_bounded,
    read_json,
    read_replicas,
    write_whole,
)
from roles.watchdog.on_host.gpus import FIELDS, OLD_FIELDS, advice, rows_of
from roles.watchdog.on_host.units import UNIT

MOST_COMMAND = 4096
# A closed port is open again by itself after this, should the watchdog have died.
CLOSED_S = 60
PROGRAM_S, GONE_S, SMI_S = 20, 8, 4
ALARM_S, MOST_AT_ONCE = 120, 16
# Where systemd's sockets begin, by sd_listen_fds(3).
FIRST_SOCKET = 3
KERNEL_SINCE = "-15min"
# What nvidia-smi says where the last GPU is lost.
GONE = "No devices were found"
DAY_S = 86400
WITH_REASON = {"quarantine"}


class Refused(Exception):  # noqa: N818
    """A command that is not done; its text says why."""


class Helper:
    """Does commands for the replicas of a host; `config` is the watchdog's."""

    def __init__(self, config):
        self.config, self.table = config, config["table"]
        self.commands = {
            "key": self.key,
            "port": self.port,
            "close": self.close,
            "open": self.open,
            "evidence": self.evidence,
            "restart": self.restart,
            "quarantine": self.quarantine,
            "reset": self.reset,
            "reboot": self.reboot,
        }

    def answer(self, line):
        """The answer to a command."""
        try:
            command = parsed(line)
            do, name = command.pop("do"), command.pop("replica")
            if not isinstance(do, str) or do not in self.commands or not isinstance(name, str):
                raise Refused("no such command")
            if set(command) - ({"reason"} if do in WITH_REASON else set()):
                raise Refused("%s takes nothing else" % do)
            replica = self.replica(name)
            return dict(self.commands[do](replica, **command), ok=True)
        except Refused as error:
            return {"ok": False, "error": str(error)}
        except (subprocess.SubprocessError, *DAMAGED) as error:
            return {"ok": False, "error": plain(repr(error))}

    def replica(self, name):
        """The replica of that name that the manifest has."""
        replica = read_replicas(self.config["manifest"], {}).get(name)
        if replica is None:
            raise Refused("the manifest has no such replica")
        return replica

    def key(self, replica):
        """The key for the host's own requests to a replica; "" where it asks for none."""
        entry = {one["name"]: one for one in read_json(self.config["manifest"])["replicas"]}
        folder = os.path.realpath(str(entry[replica.name]["folder"]))
        if os.path.dirname(folder) != os.path.join(self.config["replicas"], replica.name):
            raise Refused("%s is not the folder of this replica" % folder)
        try:
            text = read_bounded(os.path.join(folder, "keys")).decode()
        except FileNotFoundError:
            text = ""
        return {"key": text.partition("\n")[0].strip()}

    def port(self, replica):
        """The port of an engine that the replica's program started itself; 0 where there is
        none."""
        for pid in members_of_unit(replica.name):
            port = port_of(first_bytes("/proc/%d/cmdline" % pid))
            if port:
                return {"port": port}
        return {"port": 0}

    def close(self, replica):
        """Have the port take no new connections for a minute."""
        # To add what is there would not renew its time.
        self.nft(
            "add element inet %s closed { %d timeout %ds }" % (self.table, replica.port, CLOSED_S),
            opened=replica.port,
        )
        return {}

    def open(self, replica):
        """Have the port take connections again."""
        self.nft(opened=replica.port)
        return {}

    def nft(self, *lines, opened):
        """Take a port out of the closed ones, if it is among them, and do these lines, at once."""
        self.add_rules()
        # What is not there cannot be deleted.
        element = "element inet %s closed { %d }" % (self.table, opened)
        run(["nft", "-f", "-"], "\n".join(["add " + element, "delete " + element, *lines, ""]))

    def add_rules(self):
        """Load the watchdog's table where another program has flushed it."""
        command = ["nft", "list", "set", "inet", self.table, "closed"]
        if run(command, check=False).returncode != 0:
            run(["nft", "-f", self.config["rules"]])

    def evidence(self, replica):
        """Keep what shows why a replica hangs."""
        secrets = [self.key(replica)["key"]]
        # First, as it is what is waited for.
        gpus = [gpu for gpu in replica.gpus if str(gpu) in self.config["gpu_names"]]
        found = advice(self.config["policy"], gpus, query_gpus(), kernel_log())
        path = collect(self.config["evidence"], replica, secrets, "%s\n%s" % found)
        return {"done": path, "step": found.step, "reason": found.reason}

    def restart(self, replica):
        """Kill all processes of a replica and start its unit anew."""
        if any(locked(path) for path in self.config["locks"]):
            raise Refused("a deploy is at work on this host")
        unit = UNIT % replica.name
        # What hangs does not answer SIGTERM, and systemd would wait for its drain.
        run(["systemctl", "kill", "--signal=SIGKILL", unit], check=False)
        left = self.await_end(replica)
        run(["systemctl", "reset-failed", unit], check=False)
        run(["systemctl", "restart", "--no-block", unit])
        return {"done": "restarted" + ("; cannot be killed: %s" % left if left else "")}

    def await_end(self, replica):
        """The processes of a replica that are still there after a while."""
        end, left = time.monotonic() + GONE_S, members_of_unit(replica.name)
        before = set(left)
        while before & set(left) and time.monotonic() < end:
            time.sleep(0.2)
            left = members_of_unit(replica.name)
        return sorted(before & set(left))

    def quarantine(self, replica, reason=""):
        """Stop a replica until a person lifts its quarantine; it survives reboots."""
        about = {
            "replica": replica.name,
            "service": replica.service,
            "reason": plain(reason) or "no reason was given",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "gpus": replica.gpus,
            # The driver no longer tells the name of a GPU that is lost.
            "gpu_names": [self.gpu_name(gpu) for gpu in replica.gpus],
        }
        folder = self.config["quarantine"]
        os.makedirs(folder, exist_ok=True)
        # The watchdog must see it, whatever this process's umask is.
        os.chmod(folder, 0o755)
        path = os.path.join(folder, replica.name + ".json")
        write_whole(path, json.dumps(about, indent=1) + "\n")
        unit = UNIT % replica.name
        run(["systemctl", "kill", "--signal=SIGKILL", unit], check=False)
        run(["systemctl", "stop", "--no-block", unit])
        return {"done": path}

    def gpu_name(self, gpu):
        name = self.config["gpu_names"].get(str(gpu), "")
        return ("%d %s" % (gpu, name)).strip()

    def reset(self, replica):
        """Reset the GPUs of a replica, where no process uses them, and start it anew."""
        if not self.config["may_reset"]:
            raise Refused("watchdog.allow_gpu_reset is off")
        if any(locked(path) for path in self.config["locks"]):
            raise Refused("a deploy is at work on this host")
        unit = UNIT % replica.name
        run(["systemctl", "kill", "--signal=SIGKILL", unit], check=False)
        run(["systemctl", "stop", unit])
        try:
            for gpu in replica.gpus:
                query = ["nvidia-smi", "-i", str(gpu), "--query-compute-apps=pid"]
                users = run([*query, "--format=csv,noheader"]).stdout.split()
                if users:
                    raise Refused("GPU %d is used by process %s" % (gpu, b" ".join(users).decode()))
            for gpu in replica.gpus:
                run(["nvidia-smi", "--gpu-reset", "-i", str(gpu)])
        finally:
            run(["systemctl", "start", "--no-block", unit])
        return {"done": "GPUs %s are reset" % ", ".join(map(str, replica.gpus))}

    def reboot(self, replica):
        """Reboot the host, at most once a day."""
        if not self.config["may_reboot"]:
            raise Refused("watchdog.allow_reboot is off")
        if any(locked(path) for path in self.config["locks"]):
            raise Refused("a deploy is at work on this host")
        path, now = self.config["rebooted"], time.time()
        with contextlib.suppress(FileNotFoundError):
            if now - os.stat(path).st_mtime < DAY_S:
                raise Refused("it was rebooted within a day")
        write_whole(path, "for %s\n" % replica.name)
        run(["systemctl", "reboot", "--no-block"])
        return {"done": "reboots"}


def port_of(command):
    """The port that a process was told to listen at, by its command as /proc has it; 0 for none."""
    words = command.split("\0")
    value = words[words.index("--port") + 1] if "--port" in words[:-1] else ""
    return int(value) if value.isdigit() and int(value) < 65536 else 0


def query_gpus():
    """What nvidia-smi shows of each GPU; None where it hangs, empty where there is none."""
    for fields in (FIELDS, OLD_FIELDS):
        query = "--query-gpu=" + ",".join(fields)
        text = output(["nvidia-smi", query, "--format=csv,noheader"], SMI_S)
        if text == HANGS:
            return None
        rows = rows_of(text, fields)
        if not rows and GONE in text:
            # It answers, and lists none.
            return [{}]
        if rows:
            return rows
    return []


def kernel_log():
    """The kernel's log of the last minutes."""
    return output(["journalctl", "--no-pager", "-k", "--since", KERNEL_SINCE, "-o", "cat"], SMI_S)


def run(command, text="", check=True):
    """Run a program with bounded time; Refused with what it prints where it fails."""
    done = subprocess.run(
        command,
        input=text.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PROGRAM_S,
    )
    if check and done.returncode != 0:
        raise Refused("%s: %s" % (" ".join(command), plain(done.stdout.decode(errors="replace"))))
    return done


class Connection(socketserver.StreamRequestHandler):
    """Answers the one command of a connection."""

    def handle(self):
        # A client that says nothing or never reads, and a program that never ends.
        signal.alarm(ALARM_S)
        answer = Helper(read_json(sys.argv[1])).answer(self.rfile.readline(MOST_COMMAND))
        text = json.dumps(answer)[: MOST_BYTES - 1]
        # A client that went away needs no answer.
        with contextlib.suppress(OSError):
            self.wfile.write(text.encode() + b"\n")


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Answers each connection by a process of its own, so that one that hangs holds up no other.

    It stays: on a busy host a program that is started anew for each command comes too late.
    """

    max_children = MOST_AT_ONCE

    def __init__(self):
        super().__init__("", Connection, bind_and_activate=False)
        self.socket.close()
        # The one that systemd listens on and hands over.
        self.socket = socket.socket(fileno=FIRST_SOCKET)


def serve_commands():
    """Answer the commands that come over systemd's socket, by the configuration of the argument."""
    Server().serve_forever()
