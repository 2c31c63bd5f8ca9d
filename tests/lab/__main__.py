"""The lab's command line: `python -m tests.lab COMMAND`."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time

from . import driver_faults, faults, holder, hosts
from .build import build
from .paths import HOSTS, LabError


def parser() -> argparse.ArgumentParser:
    """The commands and what they take."""
    top = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="make everything that hosts are made of")
    up = commands.add_parser("up", help="boot fresh hosts and wait for their logins")
    up.add_argument("--hosts", metavar="lb1,gpu1", help="only these")
    down = commands.add_parser("down", help="end all hosts and leave nothing")
    down.add_argument("--force", action="store_true", help="even if a test run holds the lab")
    commands.add_parser("status", help="what is up, and who holds it")
    ssh = commands.add_parser("ssh", help="log in on a host, or run a command there")
    ssh.add_argument("host", choices=HOSTS)
    ssh.add_argument("line", nargs=argparse.REMAINDER)
    run = commands.add_parser("run", help="run a command on the control side: run -- CMD …")
    run.add_argument("line", nargs=argparse.REMAINDER)
    for name, text in ONE_HOST.items():
        commands.add_parser(name, help=text).add_argument("host", choices=HOSTS)
    cable = commands.add_parser("cable", help="pull or plug the network cable")
    cable.add_argument("host", choices=HOSTS)
    cable.add_argument("state", choices=["up", "down"])
    fault = commands.add_parser("fault", help="break a GPU, the driver or a boot: see --help")
    fault.add_argument("host", choices=HOSTS)
    kinds = fault.add_subparsers(dest="kind", required=True)
    kinds.add_parser("gpu-lost", help="the GPU falls off the bus").add_argument("index", type=int)
    xid = kinds.add_parser("xid", help="the driver reports an Xid")
    xid.add_argument("number", type=int)
    xid.add_argument("index", type=int, nargs="?", default=0)
    kinds.add_parser("driver-mismatch", help="library and kernel module differ")
    foreign = kinds.add_parser("foreign-process", help="somebody else's process holds memory")
    foreign.add_argument("index", type=int)
    foreign.add_argument("mib", type=int)
    kinds.add_parser("clear", help="all is well again")
    for name, (text, value) in DRIVER_FAULTS.items():
        kind = kinds.add_parser(name, help=text)
        if value:
            kind.add_argument("value", metavar=value)
    mirror = commands.add_parser("mirror", help="how the driver repository answers")
    mirror.add_argument("state", choices=list(driver_faults.Mirror))
    return top


DRIVER_FAULTS: dict[str, tuple[str, str | None]] = {
    "no-boot": ("its next boot hangs", None),
    "slow-boot": ("its boots take that much longer", "SECONDS"),
    "boots": ("it boots as it should", None),
    "newer-amdgpu": ("the kernel's own amdgpu knows all cards from the next boot on", None),
    "secure-boot": ("Secure Boot from the next boot on", "on|off"),
    "full-disk": ("no space left in a folder", "FOLDER"),
    "disk-free": ("the folder has its disk back", "FOLDER"),
    "pause-install": ("the next driver installation stops in the middle", None),
    "go-on": ("it goes on", None),
    "partial-upgrade": ("libraries of another version than the module", "VERSION"),
    "lose-module": ("the modules of this version vanish from its disk", "VERSION"),
    "fabric-manager": ("one of another version, or none", "VERSION|none"),
    "nouveau": ("nouveau has the GPUs from the next boot on", None),
}


ONE_HOST = {
    "power-off": "power loss",
    "power-on": "boot a host that is off, with its disk as it was",
    "stop": "orderly shutdown",
    "no-sudo": "take the deploy user's sudo away",
    "sudo": "give it back",
    "add": "boot a fresh host beside those that are up",
    "remove": "end a host and leave nothing of it",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status."""
    given = parser().parse_args(arguments)
    try:
        return _run(given)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _run(given: argparse.Namespace) -> int:
    started = time.monotonic()
    match given.command:
        case "build":
            build()
        case "up":
            hosts.up(given.hosts.split(",") if given.hosts else None, kept=True)
        case "down":
            hosts.down(given.force)
        case "status":
            return _status()
        case "ssh":
            return _status_of([*hosts.ssh_command(given.host), *given.line])
        case "run":
            line = given.line[1:] if given.line[:1] == ["--"] else given.line
            return _status_of(line)
        case "cable":
            hosts.cable(given.host, given.state)
        case "fault":
            _fault(given)
        case "mirror":
            driver_faults.mirror(given.state)
        case name:
            action = {
                "power-off": hosts.power_off,
                "power-on": hosts.power_on,
                "stop": hosts.stop,
                "no-sudo": faults.no_sudo,
                "sudo": faults.sudo,
                "add": hosts.add,
                "remove": hosts.remove,
            }[name]
            action(given.host)
    print(f"lab: {given.command} done in {time.monotonic() - started:.1f} s")
    return 0


def _status_of(line: list[str]) -> int:
    """The exit status of a command on the control side, 128 and the signal's number where one ended
    it. Ctrl-C reaches the command, too: it ends as it likes, and says so itself."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        status = hosts.run_inside(line).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    return 128 - status if status < 0 else status


def _fault(given: argparse.Namespace) -> None:
    match given.kind:
        case "gpu-lost":
            faults.gpu_lost(given.host, given.index)
        case "xid":
            faults.xid(given.host, given.number, given.index)
        case "driver-mismatch":
            faults.driver_mismatch(given.host)
        case "foreign-process":
            faults.foreign_process(given.host, given.index, given.mib)
        case "clear":
            faults.clear(given.host)
        case _:
            _driver_fault(given)


def _driver_fault(given: argparse.Namespace) -> None:
    match given.kind:
        case "slow-boot":
            driver_faults.slow_boot(given.host, float(given.value))
        case "secure-boot":
            driver_faults.secure_boot(given.host, given.value == "on")
        case "fabric-manager":
            version = None if given.value == "none" else given.value
            driver_faults.fabric_manager(given.host, version)
        case kind:
            fault = getattr(driver_faults, kind.replace("-", "_"))
            fault(given.host, *([given.value] if "value" in given else []))


def _status() -> int:
    """Print what is up; the status is 0 only if something is."""
    on = hosts.running()
    for name, is_on in on.items():
        print(f"{name:6} {HOSTS[name].address:12} {'on' if is_on else 'off'}")
    print(f"held by {holder.who()}")
    return 0 if any(on.values()) else 3


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        # As the shell has it of a command that SIGINT ended.
        sys.exit(130)
    except subprocess.SubprocessError as error:
        sys.exit(f"lab: {error!r}")
