"""The Debian that every host starts from, and the packages that hosts can install."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .paths import CONTROL_ADDRESS, HTTP_PORT, LOGIN, LabError, cached, sh

SUITE = "bookworm"
INCLUDE = [
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo"),
    *("python3", "python3-venv", "python3-apt", "ca-certificates", "curl"),
    *("iproute2", "nftables", "procps", "kmod"),
    # Not for the hosts' sake: with it the lab writes kernel messages into their journals.
    "systemd-journal-remote",
]
REPOSITORY = ["nginx", "nginx-light", "haproxy", "libnuma1", "curl", "keepalived"]
"""What hosts can install; packages that these need come with them."""
NEEDED = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "dpkg-scanpackages": "dpkg-dev",
    "gcc": "gcc",
    "g++": "g++",
    "cmake": "cmake",
    "ninja": "ninja-build",
    "gpg": "gpg",
    # Makes keys for gpg, which only recommends it.
    "gpg-agent": "gpg-agent",
}

# nspawn mounts the v1 cgroup controllers read-only for the payload, and systemd then ignores
# MemoryMax=, TasksMax= and CPUQuota= without a word: so they are made writable before it starts.
LAB_INIT = """#!/bin/sh
for controller in /sys/fs/cgroup/*; do
    [ -d "$controller" ] && [ ! -L "$controller" ] && mount -o remount,rw,bind "$controller"
done
# A bare host's kernel is simulated; it boots before everything else.
kernel=/usr/lib/lab-gpu/kernel.py
[ ! -e "$kernel" ] || python3 "$kernel" boot
# The others come with a driver, whose modules are loaded.
loaded=/usr/lib/lab-gpu/loaded
if [ -d "$loaded" ]; then
    mount -o remount,bind,rw /sys
    mkdir -p /sys/module
    mount --bind "$loaded" /sys/module
    mount -o remount,bind,ro /sys
fi
exec /lib/systemd/systemd
"""
APT_SOURCE = f"deb [trusted=yes] http://{CONTROL_ADDRESS}:{HTTP_PORT}/apt/ ./\n"
SUDO_RULE = f"{LOGIN} ALL=(ALL) NOPASSWD: ALL\n"
FILES = {
    "usr/local/lib/lab-init": (0o755, LAB_INIT),
    "etc/apt/sources.list": (0o644, APT_SOURCE),
    f"etc/sudoers.d/{LOGIN}": (0o440, SUDO_RULE),
    "etc/ssh/sshd_config.d/lab.conf": (
        0o644,
        "UseDNS no\nPasswordAuthentication no\nPermitRootLogin no\n",
    ),
    "etc/resolv.conf": (0o644, ""),
    # pip takes no wheels over plain HTTP from a host that it was not told to trust.
    "etc/pip.conf": (0o644, f"[global]\ntrusted-host = {CONTROL_ADDRESS}\n"),
    # Present and empty: systemd fills it for each host at its first boot.
    "etc/machine-id": (0o444, ""),
}
MASKED = ["apt-daily.timer", "apt-daily-upgrade.timer", "getty.target", "console-getty.service"]


def install_needed() -> None:
    """Install what the lab itself needs on this machine."""
    missing = [package for tool, package in NEEDED.items() if not shutil.which(tool)]
    if not missing:
        return
    print(f"lab: installing {' '.join(missing)} …", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        sh(["apt-get", "update", "-q"], env=environment)
        sh(["apt-get", "install", "-qy", "--no-install-recommends", *missing], env=environment)
    except (LabError, FileNotFoundError) as error:
        raise LabError(f"missing on this machine: {' '.join(missing)}\n{error}") from error


def sources() -> Path:
    """The machine's own Debian sources."""
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if path.is_file() and "deb" in path.read_text():
            return path
    raise LabError("no Debian sources found under /etc/apt")


def base() -> Path:
    """The base root, built once for each recipe."""
    recipe = repr((SUITE, INCLUDE, FILES, MASKED, Path(__file__).read_text()))
    return cached("base", recipe, _make_base)


def _make_base(partial: Path) -> None:
    root = partial / "root"
    exclude = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "doc", "locale")]
    options = ["--variant=minbase", "--mode=root", f"--include={','.join(INCLUDE)}", *exclude]
    # Its mounts must not be seen by who later removes what a killed build left.
    private = ["unshare", "--mount", "--propagation", "private"]
    sh([*private, "mmdebstrap", *options, SUITE, root, sources()])
    for listed in (root / "etc/apt/sources.list.d").iterdir():
        listed.unlink()
    # Otherwise every host would be called the same and show the same host keys.
    (root / "etc/hostname").unlink(missing_ok=True)
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for name, (mode, content) in FILES.items():
        path = root / name
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
    sh(["chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", LOGIN])
    sh(["systemctl", f"--root={root}", "--quiet", "mask", *MASKED])
    sh(["systemctl", f"--root={root}", "--quiet", "enable", "ssh.service"])
    # A fresh time stamp makes deploy tools believe that the package lists are up to date.
    os.utime(root / "var/lib/apt/lists", (0, 0))


def repository(base_root: Path) -> Path:
    """The apt repository: REPOSITORY and all that the base lacks for it."""
    recipe = repr((base_root.parent.name, REPOSITORY))
    return cached("apt", recipe, lambda partial: _make_repository(partial, base_root))


def _make_repository(partial: Path, base_root: Path) -> None:
    work = partial / "work"
    for folder in ("lists/partial", "archives/partial", "empty"):
        (work / folder).mkdir(parents=True)
    apt = ["apt-get", "-q", "-o", f"Dir::State::status={base_root}/var/lib/dpkg/status"]
    apt += ["-o", f"Dir::State::lists={work}/lists", "-o", f"Dir::Cache={work}"]
    apt += ["-o", f"Dir::Etc::sourcelist={sources()}", "-o", f"Dir::Etc::sourceparts={work}/empty"]
    sh([*apt, "update"])
    sh([*apt, "install", "-y", "--download-only", "--no-install-recommends", *REPOSITORY])
    for package in (work / "archives").glob("*.deb"):
        package.rename(partial / package.name)
    shutil.rmtree(work)
    index = sh(["dpkg-scanpackages", "--multiversion", "."], cwd=partial).stdout
    (partial / "Packages").write_text(index)
