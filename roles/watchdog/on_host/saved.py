"""What outlives the watchdog; runs on a host, after probe.py."""

import json
import sys

from roles.watchdog.on_host.files import DAMAGED, read_json, write_whole


def log(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Saved:
    """What outlives the watchdog, in a file: by replica its state (with the invocation, and whether
    its counter is a heartbeat) and its history of steps; and the reboots."""

    def __init__(self, path):
        self.path = path
        self.text, self.states, self.histories, self.reboots = "", {}, {}, []

    def load(self):
        """Read it; where it cannot be read all begins anew. Seconds of the monotonic clock are
        those of one boot."""
        try:
            data = read_json(self.path)
            self.reboots = [float(at) for at in data["reboots"]]
            if data["boot"] == boot_id():
                self.states = {
                    name: (str(state), str(invocation), bool(counts))
                    for name, (state, invocation, counts) in data["states"].items()
                }
                self.histories = {
                    name: [(float(at), str(step)) for at, step in history]
                    for name, history in data["histories"].items()
                }
        except FileNotFoundError:
            pass
        except DAMAGED as error:
            log("%s cannot be read, its counts begin anew: %r" % (self.path, error))

    def snapshot(self):
        """All of it as text, for `write`."""
        data = {
            "boot": boot_id(),
            "states": self.states,
            "histories": self.histories,
            "reboots": self.reboots,
        }
        return json.dumps(data, sort_keys=True)

    def write(self, text):
        """Write a snapshot, where it differs from the last one."""
        if text != self.text:
            write_whole(self.path, text)
            self.text = text


def boot_id():
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
