"""Faults around a driver's installation and a host's reboot, made on purpose.

All but those of the mirror are of one host and end with its disk (`hosts.remove`), or where said.
"""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path

from . import drivers, hosts
from .paths import CONTROL_ADDRESS, HOSTS, HTTP_PORT, SWITCH, WWW, LabError, host, sh
from .scripts import PAUSE, PAUSED

TABLE = "lab-mirror"
LIBRARIES = ("libcuda1", "libnvidia-ml1", "libnvidia-cfg1", "libnvidia-ptxjitcompiler1")
PROGRAMS = ("nvidia-driver-cuda", "nvidia-persistenced", "nvidia-modprobe", "nvidia-kernel-support")


class Mirror(StrEnum):
    """How the driver repository answers."""

    WELL = "well"
    MISSING = "missing"
    """404 for all of it."""
    REFUSED = "refused"
    """Bare hosts' connections are refused, to the package and wheel servers of the lab as well."""
    SILENT = "silent"
    """Packets vanish: a client waits until it gives up."""


def no_boot(name: str) -> None:
    """From its next boot on, the host hangs in its firmware, until `boots`."""
    (host(name).firmware / "no-boot").touch()


def slow_boot(name: str, seconds: float) -> None:
    """From its next boot on, the host answers nothing for that long, as with a real firmware."""
    (host(name).firmware / "boot-delay").write_text(f"{seconds}\n")


def boots(name: str) -> None:
    """The host boots as it should again; one that hangs boots now."""
    for fault in ("no-boot", "boot-delay"):
        (host(name).firmware / fault).unlink(missing_ok=True)


def secure_boot(name: str, is_on: bool = True) -> None:
    """Switch Secure Boot on or off in a bare host's firmware: from its next boot on."""
    setting = _bare(name) / "secure-boot"
    setting.touch() if is_on else setting.unlink(missing_ok=True)


def newer_amdgpu(name: str) -> None:
    """Let the kernel's own amdgpu know all cards, as later kernels do: from the next boot on."""
    (_bare(name) / "newer-amdgpu").touch()


def full_disk(name: str, folder: str = "/usr/src", free_kib: int = 64) -> None:
    """Leave so much space for files in this folder, until `disk_free` or the next boot."""
    room = f"/run/lab-room{folder.replace('/', '-')}"
    script = f"""set -eu
used=$(du -sk --apparent-size {folder} | cut -f 1)
files=$(find {folder} | wc -l)
mkdir {room}
# Each file takes whole pages.
mount -t tmpfs -o size=$((used + 4 * files + {free_kib}))k tmpfs {room}
cp -a {folder}/. {room}
mount --bind {room} {folder}
"""
    _as_kernel(name, script)


def disk_free(name: str, folder: str = "/usr/src") -> None:
    """Give the folder its disk back, with what is in it now."""
    room = f"/run/lab-room{folder.replace('/', '-')}"
    script = f"""set -eu
umount {folder}
find {folder} -mindepth 1 -delete
cp -a {room}/. {folder}
umount {room}
rmdir {room}
"""
    _as_kernel(name, script)


def mirror(state: Mirror | str) -> None:
    """Let the driver repository answer like this, for all bare hosts."""
    state = Mirror(state)
    shown = WWW / drivers.PATH_OF_DRIVERS
    aside = WWW / "cuda.aside"
    if state is Mirror.MISSING and shown.is_symlink():
        shown.rename(aside)
    elif state is not Mirror.MISSING and aside.is_symlink():
        aside.rename(shown)
    inside = ["ip", "netns", "exec", SWITCH, "nft"]
    sh([*inside, "delete", "table", "inet", TABLE], check=False)
    if state in (Mirror.REFUSED, Mirror.SILENT):
        verdict = "reject with tcp reset" if state is Mirror.REFUSED else "drop"
        bare = ", ".join(each.address for each in HOSTS.values() if each.bare)
        match = f"ip saddr {{ {bare} }} ip daddr {CONTROL_ADDRESS} tcp dport {HTTP_PORT}"
        chain = f"type filter hook input priority 0\n{match} {verdict}\n"
        rules = f"table inet {TABLE} {{\nchain input {{\n{chain}}}\n}}\n"
        sh([*inside, "-f", "-"], stdin=None, input=rules)


def pause_install(name: str) -> None:
    """Let the next installation of kernel modules stop in its postinst, until `go_on`."""
    _must(name, f"sudo touch {PAUSE}")


def wait_for_pause(name: str, timeout_s: float = 900) -> None:
    """Return once the installation has stopped there: the moment to cut the power."""
    deadline = time.monotonic() + timeout_s
    while hosts.ssh(name, f"test -e {PAUSED}").returncode:
        if time.monotonic() > deadline:
            raise LabError(f"{name}: no installation has come to the pause in {timeout_s} s")
        time.sleep(0.1)


def go_on(name: str) -> None:
    """Let a paused installation go on."""
    _must(name, f"sudo rm -f {PAUSE}")


def partial_upgrade(name: str, version: str) -> None:
    """Upgrade libraries and programs by apt and leave the kernel modules: NVML refuses to work.

    The host must know a repository with both versions (a driver was installed from it).
    """
    packages = " ".join(f"{each}={version}-1" for each in (*LIBRARIES, *PROGRAMS[:-1]))
    _apt(name, f"install --no-install-recommends {packages}")


def lose_module(name: str, version: str) -> None:
    """Remove the driver's modules from the disk by dkms, as a package's prerm does; they stay
    loaded."""
    _must(name, f"sudo dkms remove -m nvidia -v {version} --all")


def fabric_manager(name: str, version: str | None) -> None:
    """Put a fabric manager of this version in place of the right one, or take it away (None)."""
    if version is None:
        _apt(name, "remove nvidia-fabricmanager")
        return
    _apt(name, f"install nvidia-fabricmanager={version}-1")
    # As after the next boot; it fails where the versions differ.
    hosts.ssh(name, "sudo systemctl restart nvidia-fabricmanager")


def nouveau(name: str) -> None:
    """The state before a driver's first reboot: nouveau has the GPUs, from the next boot on."""
    _must(
        name,
        "sudo sh -c 'grep -lw nouveau /etc/modprobe.d/*.conf | xargs -r rm && update-initramfs -u'",
    )


def _apt(name: str, arguments: str) -> None:
    options = "-qy --allow-downgrades --allow-change-held-packages"
    _must(name, f"sudo DEBIAN_FRONTEND=noninteractive apt-get {options} {arguments}")


def _must(name: str, command: str) -> None:
    done = hosts.ssh(name, command)
    if done.returncode:
        raise LabError(f"{name}: {command}: {done.stdout}{done.stderr}")


def _bare(name: str) -> Path:
    if not host(name).bare:
        raise LabError(f"{name} is not a bare host")
    return host(name).gpu_state


def _as_kernel(name: str, script: str) -> None:
    """Run a script in the host's own mounts, as nothing in the host could be told to."""
    sh(["nsenter", f"--target={hosts.outer_pid(name, 1)}", "--mount", "sh", "-c", script])
