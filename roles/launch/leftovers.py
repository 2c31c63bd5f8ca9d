"""Removes what no replica of a host starts from any more: LoRA adapters, and what replaced versions
of engines compiled; runs on a host, after on_host.py.

A replica keeps the folder that it ran from before, so that it can go back. What is named in any
file of any replica's folders stays.
"""

import contextlib
import os
import re
import shutil

from roles.host.probe import TASK
from roles.host.serving import run
from roles.launch.on_host import NUMBER, REPLICAS, replica_folder

ADAPTERS = "/opt/llm/adapters"
CACHE = "/var/cache/llm"
# The digest of an adapter's files, and what one of a broken copy is called.
ADAPTER = re.compile(r"(\.new-)?[0-9a-f]{16}\Z")
# What engines compile is in a folder of the version and the card, beside other caches.
COMPILED = re.compile(r"[a-z_]+-[0-9][A-Za-z0-9._+-]*\Z")


def starts():
    """All that replicas start from, and may go back to, as one text."""
    found = []
    for name in os.listdir(REPLICAS):
        for number in filter(NUMBER.match, own_folders(replica_folder(name))):
            folder = os.path.join(replica_folder(name), number)
            for file in os.listdir(folder):
                with open(os.path.join(folder, file), errors="replace") as text:
                    found.append(text.read())
    return "\n".join(found)


def own_folders(place):
    """The names of the folders in a place, without links; none where the place is missing."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
        return sorted(one.name for one in entries if one.is_dir(follow_symlinks=False))
    return []


def remove_leftovers(gone):
    """Remove unused adapters and caches, and all caches of the replicas in `gone`.

    Nothing is removed where a file cannot be read: what it names is not known.
    """
    with contextlib.suppress(OSError):
        used = starts()
        for name in own_folders(ADAPTERS):
            if ADAPTER.match(name) and "%s/%s" % (ADAPTERS, name) not in used:
                shutil.rmtree(os.path.join(ADAPTERS, name), ignore_errors=True)
        caches = [os.path.join(CACHE, name) for name in gone]
        for replica in own_folders(REPLICAS):
            for name in own_folders(os.path.join(CACHE, replica)):
                path = os.path.join(CACHE, replica, name)
                if COMPILED.match(name) and path not in used:
                    caches.append(path)
        if caches := [path for path in caches if os.path.isdir(path)]:
            # Engines may write there, and could put links in the way of root.
            run("runuser", "-u", TASK["user"], "--", "rm", "-rf", "--", *caches, ok=())
