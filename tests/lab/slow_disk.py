"""A disk of its own under a folder of a host, which can be paused: what writes to it hangs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from . import hosts
from .paths import host, sh

SIZE_MIB = 64
# Where the host sees it; its own /dev has no such node.
NODE, PLACE = "/lab-disk", "/mnt/lab-disk"


@contextmanager
def own_disk(name: str, folder: str) -> Iterator[None]:
    """The folder on a disk of its own meanwhile, with what is in it."""
    image = host(name).disk / "lab-disk.img"
    sh(["truncate", f"--size={SIZE_MIB}M", str(image)])
    sh(["mkfs.ext4", "-q", "-F", str(image)])
    device = sh(["losetup", "--find", "--show", str(image)]).stdout.strip()
    number = os.stat(device).st_rdev
    folder = shlex.quote(folder)
    try:
        _in_mounts(
            name,
            f"mknod {NODE} b {os.major(number)} {os.minor(number)}; mkdir -p {PLACE}; "
            f"mount -t ext4 {NODE} {PLACE}; cp -a {folder}/. {PLACE}; "
            f"mount --bind {PLACE} {folder}",
        )
        yield
    finally:
        _in_mounts(name, f"umount -l {folder}; umount -l {PLACE}; rm -f {NODE}")
        sh(["losetup", "--detach", device])
        image.unlink()


@contextmanager
def paused(name: str) -> Iterator[None]:
    """The host's own disk takes no write meanwhile: what writes hangs until then."""
    _in_mounts(name, f"fsfreeze --freeze {PLACE}")
    try:
        yield
    finally:
        _in_mounts(name, f"fsfreeze --unfreeze {PLACE}")


def _in_mounts(name: str, script: str) -> None:
    """Run a script in the host's mounts, as nothing in the host could be told to."""
    # umount reads /proc/self, which is that of the host's own processes.
    target = f"--target={hosts.outer_pid(name, 1)}"
    sh(["nsenter", target, "--mount", "--pid", "sh", "-euc", script])
