"""Files with keys on the control machine, checked."""

import os
import re
import secrets
import tempfile
from pathlib import Path

from roles.host import check_private, read_text

# The syntax of a Bearer token (RFC 6750). It holds nothing that nginx's configuration, an
# environment file or a shell could take for more than text.
KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*")
MIN_KEY_LENGTH = 16
# nginx takes lines of 4096 bytes in its configuration, and HTTP servers headers of some 8 KiB.
MAX_KEY_LENGTH = 1024
_MAX_BYTES = 2**16


def make_key(path: Path) -> bool:
    """Write a random key into a file of its owner's alone; False where there is one already.

    The file is there as a whole or not at all, and is never written over, whoever else makes it
    at the same time. Its folder is made where it is missing, and kept out of git. ValueError where
    others have rights to the folder, or it cannot be written.
    """
    path = path.expanduser()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(path.parent, 0o700)
        if path.exists():
            return False
        ignored = path.parent / ".gitignore"
        if not ignored.exists():
            ignored.write_text("*\n")
        return _written_once(path, secrets.token_hex(32) + "\n")
    except OSError as error:
        raise ValueError(
            f"{path} cannot be made: {error.strerror}; write a key into it (openssl rand -hex 32)"
        ) from None


def _written_once(path: Path, text: str) -> bool:
    descriptor, partial = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename it leaves a file that came in between as it is.
        os.link(partial, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(partial)
    return True


def read_key(path: Path) -> str:
    """The key in a file of one line; ValueError without the key in it where it is not one."""
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
