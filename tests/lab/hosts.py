"""Boot, stop, cut the power of and talk to the lab's hosts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import cgroups, drivers, holder, keys, network
from .build import Built, build
from .paths import (
    CONTROL_ADDRESS,
    DISKS,
    GGUF_FOLDER,
    HERE,
    HOSTS,
    HTTP_PORT,
    LOGIN,
    MODEL_PATH,
    RUNTIME,
    WWW,
    Host,
    LabError,
    host,
    sh,
)

# Limits on what never comes: a machine that is shared and busy takes many times as long as others.
BOOT_TIMEOUT = 600.0
STOP_TIMEOUT = 300.0
# A login is accepted while services of the boot still start.
BOOTED = "systemctl is-system-running | grep -Eqx 'running|degraded'"
BASE, MODEL = RUNTIME / "base", RUNTIME / "model"
GGUF, LLAMA = RUNTIME / "gguf", RUNTIME / "llama"
READY = RUNTIME / "ready"
"""There while the lab can be used."""
SERVER = "switch"
"""The control group of the lab's file server."""
# All hosts install at once, each over fifty connections; of its own it lets five wait.
FILE_SERVER = """import runpy, socketserver
socketserver.TCPServer.request_queue_size = 512
runpy.run_module("http.server", run_name="__main__")
"""

GPU_UNITS = {
    "lab-gpu.socket": "[Socket]\nListenStream=/run/lab-gpu.sock\nSocketMode=0666\n",
    "lab-gpu.service": "[Service]\nExecStart=/usr/bin/python3 /usr/lib/lab-gpu/driver.py\n",
    "sockets.target.d/lab-gpu.conf": "[Unit]\nWants=lab-gpu.socket\n",
}
"""The simulated driver: started by the first nvidia-smi."""
RPC_UNIT = """[Service]
ExecStart=/usr/lib/lab-llama/ggml-rpc-server -H {address} -p {port} -t 1
Restart=always
DynamicUser=yes
"""
"""What stands for one GPU of a host whose llama.cpp, built for CPUs, has none to split over."""


def rpc_addresses(name: str) -> list[str]:
    """Where the processes listen that stand for a host's GPUs, in the order of its GPUs."""
    profile = json.loads((HERE / "profiles" / f"{host(name).gpus}.json").read_text())
    return [f"127.0.0.{2 + index}:{18050 + index}" for index in range(len(profile["gpus"]))]


DEBIAN_SOURCE = f"deb [trusted=yes] http://{CONTROL_ADDRESS}:{HTTP_PORT}/debian/ ./\n"
"""The kernel's and dkms's stand-ins, of bare hosts."""


def up(names: Iterable[str] | None = None, kept: bool = False) -> None:
    """Boot fresh hosts (the usual ones, if none is named); return once each has booted.

    `kept` lets the lab outlive this process; otherwise whoever comes after it may clear it.
    """
    usual = [name for name, each in HOSTS.items() if each.usual]
    chosen = [host(name) for name in names or usual]
    holder.take(kept)
    READY.unlink(missing_ok=True)
    built = build()
    _clear()
    built.forget_older()
    RUNTIME.mkdir(mode=0o755)
    # What hosts boot from stays the same while they are up, whatever is built meanwhile.
    BASE.symlink_to(built.base)
    MODEL.symlink_to(built.model)
    GGUF.symlink_to(built.gguf)
    LLAMA.symlink_to(built.llama)
    network.make_switch()
    keys.write_known_hosts()
    for each in chosen:
        _make_disk(each, built)
        _boot(each)
    _wait_for_boots(chosen)
    # Last, because it holds the lab: an `up` that was killed must not.
    _serve_files(built, kept)
    READY.touch()


def add(name: str) -> None:
    """Boot a fresh host beside those that are up."""
    if not BASE.exists():
        raise LabError("the lab is down")
    if running()[name]:
        raise LabError(f"{name} is on already")
    each = host(name)
    built = build()
    sh(["rm", "-rf", "--one-file-system", each.disk])
    _make_disk(each, replace(built, base=BASE.resolve()))
    _boot(each)
    _wait_for_boots([each])


def remove(name: str) -> None:
    """End a host and leave nothing of it; the others stay up."""
    each = host(name)
    cgroups.end(name)
    network.unplug(each)
    for folder in (each.disk, each.runtime):
        sh(["rm", "-rf", "--one-file-system", folder])


@contextlib.contextmanager
def booted(*names: str) -> Iterator[None]:
    """Fresh hosts beside those that are up; gone at the end."""
    try:
        for name in names:
            remove(name)
            add(name)
        yield
    finally:
        for name in names:
            remove(name)


def down(force: bool = False) -> None:
    """End all hosts and leave nothing of them."""
    if not force and holder.held_by_other():
        raise holder.LabBusyError(
            f"the lab is held by {holder.who()}; `down --force` ends it anyway"
        )
    _clear()
    holder.let_go()


def running() -> dict[str, bool]:
    """Which hosts are switched on."""
    return {name: bool(cgroups.processes(name)) for name in HOSTS}


def power_off(name: str) -> None:
    """Power loss: every process ends at once, with what it had not yet written."""
    if not running()[host(name).name]:
        raise LabError(f"{name} is off")
    # One that hangs in its firmware has no process yet, and one that reboots none any more.
    with contextlib.suppress(LabError, ProcessLookupError):
        os.kill(outer_pid(name, 1), signal.SIGKILL)
    cgroups.end(name)


def stop(name: str) -> None:
    """An orderly shutdown."""
    os.kill(outer_pid(name, 1), signal.SIGRTMIN + 3)
    deadline = time.monotonic() + STOP_TIMEOUT
    while cgroups.processes(name):
        if time.monotonic() > deadline:
            raise LabError(f"{name} does not shut down")
        time.sleep(0.05)
    cgroups.end(name)


def power_on(name: str) -> None:
    """Boot a host that is off; its disk is as it was."""
    if running()[name]:
        raise LabError(f"{name} is on already")
    _boot(host(name))
    _wait_for_boots([host(name)])


def boot_id(name: str) -> str:
    """What a host calls this boot of its; empty if it does not answer."""
    return ssh(name, "cat /proc/sys/kernel/random/boot_id").stdout.strip()


def reboot(name: str) -> None:
    """Let a host reboot itself, and wait until its next boot is done."""
    before = boot_id(name)
    if not before:
        raise LabError(f"{name} does not answer, so nobody could tell its next boot from this one")
    ssh(name, "sudo systemctl reboot")
    wait_for_boot(name, before)


def wait_for_boot(name: str, before: str) -> None:
    """Wait until a host is done with another boot than `before`."""
    deadline = time.monotonic() + BOOT_TIMEOUT
    while boot_id(name) in ("", before):
        if time.monotonic() > deadline:
            raise LabError(f"{name} does not come back")
        time.sleep(0.1)
    _wait_until_booted(host(name), deadline)


def cable(name: str, state: str) -> None:
    """Pull the host's network cable (`down`) or plug it in (`up`)."""
    network.cable(host(name), state)


def ssh_command(name: str) -> list[str]:
    """The command line that logs in on a host; it has to run inside the switch's namespace."""
    options = {
        "UserKnownHostsFile": keys.KNOWN_HOSTS,
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        # Of the handshake too, for which a busy host may take some seconds.
        "ConnectTimeout": "20",
        # A host that vanishes without a word must not hang its caller.
        "ServerAliveInterval": "60",
        "LogLevel": "ERROR",
    }
    line = ["ssh", "-F", "/dev/null", "-i", str(keys.LOGIN_KEY)]
    for key, value in options.items():
        line += ["-o", f"{key}={value}"]
    return [*line, f"{LOGIN}@{host(name).address}"]


def ssh(name: str, command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a shell command on a host as the deploy user; the caller looks at its exit status."""
    options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL} | options
    return run_inside([*ssh_command(name), command], **options)


def run_inside(argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a command on the control side: inside the switch's namespace."""
    return subprocess.run(network.inside(list(argv)), **options)


def write_on_disk(name: str, path: str, text: str | None) -> None:
    """Put a file on a running host without its knowledge (None removes it)."""
    target = root(name) / path.lstrip("/")
    target.unlink(missing_ok=True)
    if text is not None:
        target.write_text(text)
        target.chmod(0o440)


def log_from_kernel(name: str, text: str) -> None:
    """Put lines into the host's journal as its kernel's (`journalctl -k` shows them).

    The hosts share this machine's kernel, whose log they do not see; so the lines go into a journal
    file of their own, which the host's journalctl reads like any other.
    """
    files = root(name)
    machine = (files / "etc/machine-id").read_text().strip()
    boot = (files / "proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    uptime = int(float(Path("/proc/uptime").read_text().split()[0]) * 1_000_000)
    entry = ""
    for line in text.splitlines():
        fields = {
            "__REALTIME_TIMESTAMP": time.time_ns() // 1000,
            "__MONOTONIC_TIMESTAMP": uptime,
            "_BOOT_ID": boot,
            "_TRANSPORT": "kernel",
            "PRIORITY": 3,
            "SYSLOG_FACILITY": 0,
            "SYSLOG_IDENTIFIER": "kernel",
            "_MACHINE_ID": machine,
            "_HOSTNAME": name,
            "MESSAGE": line,
        }
        entry += "".join(f"{key}={value}\n" for key, value in fields.items()) + "\n"
    journal = f"/var/log/journal/{machine}/kernel.journal"
    writer = ["chroot", files, "/lib/systemd/systemd-journal-remote", "-o", journal, "-"]
    sh(writer, stdin=None, input=entry)


def outer_pid(name: str, pid: int) -> int:
    """A host's process by its number on this machine."""
    for outer in sorted(cgroups.processes(host(name).name)):
        try:
            status = Path(f"/proc/{outer}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        spaces = next((x for x in status.splitlines() if x.startswith("NSpid:")), "").split()
        if len(spaces) > 2 and spaces[-1] == str(pid):
            return outer
    raise LabError(f"{name} has no process {pid}" if pid != 1 else f"{name} is off")


def root(name: str) -> Path:
    """A running host's files, as it sees them."""
    return Path(f"/proc/{outer_pid(name, 1)}/root")


def _clear() -> None:
    cgroups.end()
    network.clear()
    shutil.rmtree(RUNTIME, ignore_errors=True)
    # A host with an engine on it has 56 000 files: 4 s each, so all hosts' at once.
    disks = list(DISKS.iterdir()) if DISKS.exists() else []
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda disk: sh(["rm", "-rf", "--one-file-system", disk]), disks))
    shutil.rmtree(DISKS, ignore_errors=True)
    if RUNTIME.exists() or DISKS.exists():
        raise LabError(f"cannot remove {RUNTIME} and {DISKS}")


def _start(argv: list[str], group: str, log: Path, **options: Any) -> None:
    folders = cgroups.make(group)
    with log.open("a") as output:
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: cgroups.join(folders),
            **options,
        )


def _serve_files(built: Built, kept: bool) -> None:
    shutil.rmtree(WWW, ignore_errors=True)
    WWW.mkdir()
    (WWW / "apt").symlink_to(built.repository)
    (WWW / "wheels").symlink_to(built.wheels)
    (WWW / "llama").symlink_to(built.llama)
    (WWW / "debian").symlink_to(built.drivers / "debian")
    (WWW / "amd").symlink_to(built.drivers / "amd")
    (WWW / drivers.PATH_OF_DRIVERS).parent.mkdir(parents=True)
    (WWW / drivers.PATH_OF_DRIVERS).symlink_to(built.drivers / drivers.PATH_OF_DRIVERS)
    server = [sys.executable, "-c", FILE_SERVER, str(HTTP_PORT), "--bind", CONTROL_ADDRESS]
    server += ["--directory", str(WWW)]
    held = holder.descriptors() if kept else ()
    _start(network.inside(server), SERVER, RUNTIME / "http.log", pass_fds=held, cwd="/")
    probe = ["bash", "-c", f"until : >/dev/tcp/{CONTROL_ADDRESS}/{HTTP_PORT}; do sleep 0.05; done"]
    run_inside(probe, stderr=subprocess.DEVNULL, timeout=300, check=True)


def _make_disk(host: Host, built: Built) -> None:
    (host.disk / "work").mkdir(parents=True)
    (host.disk / "upper").mkdir()
    host.firmware.mkdir()
    login_key = keys.LOGIN_KEY.with_suffix(".pub").read_text()
    host_key = keys.host_key(host.name)
    public = host_key.with_suffix(".pub").read_text()
    home = (built.base / "home" / LOGIN).stat()
    _put(host, built, f"home/{LOGIN}/.ssh/authorized_keys", login_key, 0o600, home.st_uid)
    _put(host, built, "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n", 0o644)
    _put(host, built, "etc/ssh/ssh_host_ed25519_key", host_key.read_text(), 0o600)
    _put(host, built, "etc/ssh/ssh_host_ed25519_key.pub", public, 0o644)
    if host.gpus is None:
        return
    tools = {"lspci": "lspci.py"} | ({} if host.bare else {"nvidia-smi": "nvidia_smi.py"})
    for tool, source in tools.items():
        _put(host, built, f"usr/bin/{tool}", (HERE / "gpu" / source).read_text(), 0o755)
    for path, text in GPU_UNITS.items():
        _put(host, built, f"etc/systemd/system/{path}", text, 0o644)
    host.gpu_state.mkdir()
    shutil.copy(HERE / "profiles" / f"{host.gpus}.json", host.gpu_state / "profile.json")
    shutil.copy(HERE / "gpu" / "driver.py", host.gpu_state)
    (host.gpu_state / "faults.json").write_text("{}\n")
    if host.rpc:
        _stand_for_gpus(host, built)
    if host.bare:
        _make_bare(host, built)
    else:
        _load_driver(host)


def _stand_for_gpus(host: Host, built: Built) -> None:
    """Units that start with the host, one for each GPU."""
    for index, at in enumerate(rpc_addresses(host.name)):
        address, port = at.split(":")
        unit = f"lab-rpc{index}.service"
        text = RPC_UNIT.format(address=address, port=port)
        _put(host, built, f"etc/systemd/system/{unit}", text, 0o644)
        wanted = "[Unit]\nWants=" + unit + "\n"
        _put(host, built, f"etc/systemd/system/multi-user.target.d/{index}.conf", wanted, 0o644)


def _load_driver(host: Host) -> None:
    """The modules of a driver that the host came with, as /sys/module shows them."""
    profile = json.loads((host.gpu_state / "profile.json").read_text())
    for name in ("nvidia", "nvidia_uvm"):
        (host.gpu_state / "loaded" / name).mkdir(parents=True)
    version = host.gpu_state / "loaded/nvidia/version"
    version.write_text(f"{profile['fields']['driver_version']}\n")


def _make_bare(host: Host, built: Built) -> None:
    """What a bare host has: a simulated kernel with its packages, and no driver."""
    for source in ("kernel.py", "installed_smi.py", "nvidia_smi.py", "cuda_start.py", "amd_smi.py"):
        shutil.copy(HERE / "gpu" / source, host.gpu_state)
    packages = drivers.installed_debs(built.drivers)
    # dpkg's own scripts run in the host's root, so it is put together for them once.
    script = f"""set -eu
mount -t overlay -o lowerdir={built.base},upperdir={host.disk}/upper,workdir={host.disk}/work \\
    overlay {host.runtime}/root
mkdir {host.runtime}/root/packages
mount --bind {built.drivers}/debian {host.runtime}/root/packages
chroot {host.runtime}/root dpkg -i {" ".join(f"/packages/{each.name}" for each in packages)}
umount {host.runtime}/root/packages
rmdir {host.runtime}/root/packages
"""
    (host.runtime / "root").mkdir(parents=True, exist_ok=True)
    sh(["unshare", "--mount", "--propagation", "private", "sh", "-c", script])
    _put(host, built, "etc/apt/sources.list.d/lab-debian.list", DEBIAN_SOURCE, 0o644)
    # Last: while packages are installed the real ones do their work.
    for tool in ("sbin/modprobe", "sbin/rmmod", "sbin/lsmod", "bin/lsmod"):
        text = f'#!/bin/sh\nexec python3 /usr/lib/lab-gpu/kernel.py {Path(tool).name} "$@"\n'
        _put(host, built, f"usr/{tool}", text, 0o755)


def _put(host: Host, built: Built, name: str, text: str, mode: int, owner: int = 0) -> None:
    upper = host.disk / "upper"
    for folder in reversed(Path(name).parents[:-1]):
        _copy_folder(built.base / folder, upper / folder, owner)
    (upper / name).write_text(text)
    (upper / name).chmod(mode)
    os.chown(upper / name, owner, owner)


def _copy_folder(below: Path, above: Path, owner: int) -> None:
    # The attributes of an overlay's upper folder hide those of the lower one.
    if above.exists():
        return
    above.mkdir(mode=0o700)
    if below.exists():
        shutil.copystat(below, above)
        os.chown(above, below.stat().st_uid, below.stat().st_gid)
    else:
        os.chown(above, owner, owner)


def _boot(host: Host) -> None:
    network.plug_in(host)
    root = host.runtime / "root"
    root.mkdir(parents=True, exist_ok=True)
    binds = []
    if host.gpus:
        binds = [
            f"--bind-ro={host.gpu_state}:/usr/lib/lab-gpu",
            f"--bind-ro={MODEL.resolve()}:{MODEL_PATH}",
            *(f"--bind-ro={file}:{GGUF_FOLDER}/{file.name}" for file in GGUF.resolve().iterdir()),
        ]
    if host.rpc:
        binds.append(f"--bind-ro={LLAMA.resolve()}:/usr/lib/lab-llama")
    arguments = [host.name, host.namespace, BASE.resolve(), host.disk, root, *binds]
    script = ["unshare", "--mount", "--propagation", "private", "sh", HERE / "boot-host.sh"]
    line = [str(part) for part in (*script, *arguments)]
    _start(line, host.name, host.runtime / "console.log", cwd="/")


def _wait_for_boots(chosen: list[Host]) -> None:
    deadline = time.monotonic() + BOOT_TIMEOUT
    with ThreadPoolExecutor(len(chosen)) as pool:
        list(pool.map(lambda each: _wait_until_booted(each, deadline), chosen))


def _wait_until_booted(host: Host, deadline: float) -> None:
    while (answer := ssh(host.name, BOOTED)).returncode:
        if time.monotonic() > deadline:
            console = (host.runtime / "console.log").read_text()[-2000:]
            raise LabError(f"{host.name} does not end its boot: {answer.stderr}\n{console}")
        time.sleep(0.2)
