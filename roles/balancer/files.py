"""Files with keys on the control machine: reading, checking and making them."""

import os
import re
import secrets
import tempfile
from pathlib import Path

from roles.host import check_private, read_text

# The syntax of a Bearer token (RFC 6750). It has no characters that are special in a balancer's
# configuration, an environment file or a shell.
KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*")
MIN_KEY_LENGTH = 16
# Balancers limit a line of their configuration to 2 or 4 KiB, and HTTP servers headers to 8 KiB.
MAX_KEY_LENGTH = 1024
_MAX_BYTES = 2**16


def make_key(path: Path) -> bool:
    """Write a random key into a private file; False where the file exists already.

    The file is written atomically and never overwritten, even if several processes do so at once.
    Its folder is created if missing, and kept out of git. ValueError where others may access the
    folder, or it cannot be written.
    """
    path = path.expanduser()
    try:
        if path.exists():
            return False
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(path.parent, 0o700)
        ignored = path.parent / ".gitignore"
        if not ignored.exists():
            ignored.write_text("*\n")
        return _write_once(path, secrets.token_hex(32) + "\n")
    except OSError as error:
        raise ValueError(
            f"{path} cannot be made: {error.strerror}; write a key into it (openssl rand -hex 32)"
        ) from None


def _write_once(path: Path, text: str) -> bool:
    descriptor, partial = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link does not replace a file that another process made meanwhile.
        os.link(partial, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(partial)
    return True


def read_key(path: Path) -> str:
    """The key in a file of one line; ValueError, whose message does not hold the key, for any
    other file."""
    key = read_text(path, _MAX_BYTES).removesuffix("\n").removesuffix("\r")
    check_private(path)
    if not key:
        raise ValueError(f"{path} is empty: write a key into it, e.g. from `openssl rand -hex 32`")
    if len(key.splitlines()) > 1:
        raise ValueError(f"{path} has more than one line: leave the key alone in it")
    if not KEY.fullmatch(key):
        raise ValueError(f"the key in {path} may hold only letters, digits and - . _ ~ + / =")
    if len(key) < MIN_KEY_LENGTH:
        raise ValueError(f"the key in {path} has fewer than {MIN_KEY_LENGTH} characters: take more")
    if len(key) > MAX_KEY_LENGTH:
        raise ValueError(
            f"the key in {path} has more than {MAX_KEY_LENGTH} characters: take fewer, e.g. "
            "`openssl rand -hex 32`"
        )
    return key
