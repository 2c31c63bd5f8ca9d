"""Files with keys on the control machine, checked."""

import re
from pathlib import Path

from roles.host import check_private, read_text

# The syntax of a Bearer token (RFC 6750). It holds nothing that nginx's configuration, an
# environment file or a shell could take for more than text.
KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*")
KEY_LENGTH = 16
# nginx takes lines of 4096 bytes in its configuration, and HTTP servers headers of some 8 KiB.
KEY_MOST = 1024
_MOST_BYTES = 2**16


def read_key(path: Path) -> str:
    """The key in a file of one line; ValueError without the key in it where it is not one."""
    key = read_text(path, _MOST_BYTES).removesuffix("\n").removesuffix("\r")
    check_private(path)
    if not key:
        raise ValueError(f"{path} is empty: write a key into it, e.g. from `openssl rand -hex 32`")
    if len(key.splitlines()) > 1:
        raise ValueError(f"{path} has more than one line: leave the key alone in it")
    if not KEY.fullmatch(key):
        raise ValueError(f"the key in {path} may hold only letters, digits and - . _ ~ + / =")
    if len(key) < KEY_LENGTH:
        raise ValueError(f"the key in {path} has fewer than {KEY_LENGTH} characters: take more")
    if len(key) > KEY_MOST:
        raise ValueError(
            f"the key in {path} has more than {KEY_MOST} characters: take fewer, e.g. "
            "`openssl rand -hex 32`"
        )
    return key
